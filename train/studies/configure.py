"""Turns a request for a study into its settings. Imports nothing slow, so that a mistake is reported at once."""

from pathlib import Path

from magnet_core.errors import MagnetError
from magnet_core.registry import look_up
from train.settings.protocols import PROTOCOLS
from train.studies.request import StudyRequest
from train.studies.settings import StudyConfig, load_study_config


def configure(request: StudyRequest) -> StudyConfig:
    """Build the settings; no encoder is trained without `finetune`, unless a setting says otherwise."""
    brought = look_up(PROTOCOLS, request.protocol, where="--protocol").values.get("split", {})
    folds = Path(brought.get("file", "folds.json")).name
    options = {
        "data.store": ("--store", request.store),
        "data.backbone": ("--backbone", request.backbone),
        "runs": ("--runs", request.runs),
        "split.file": ("--runs", request.runs / folds if request.runs else None),
        "device": ("--device", request.device),
        "seeds": ("--seeds", request.seeds),
        "encoder.mode": ("no --finetune", "frozen" if request.finetune is False else None),
    }
    config = load_study_config(request.recipe, request.settings, options=options, protocol=request.protocol)
    if request.finetune is (config.fit.encoder.mode == "frozen"):
        raise MagnetError(
            "encoder.mode",
            expected="full, last or lora where encoders are fine-tuned, frozen where not",
            found=config.fit.encoder.mode,
            remedy="change it, or --finetune of 'train study', --bins of 'train cv'",
        )
    return config

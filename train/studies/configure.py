"""What was asked of a study as its settings. Imports nothing that takes long, so that a mistake is told of at once."""

from pathlib import Path

from magnet_core.errors import MagnetError
from magnet_core.registry import look_up
from train.settings.protocols import PROTOCOLS
from train.studies.request import StudyRequest
from train.studies.settings import StudyConfig, load_study_config


def configure(asked: StudyRequest) -> StudyConfig:
    """Build the settings; without `finetune`, and unless set otherwise, no encoder is trained."""
    brought = look_up(PROTOCOLS, asked.protocol, where="--protocol").values.get("split", {})
    folds = Path(brought.get("file", "folds.json")).name
    options = {
        "data.store": ("--store", asked.store),
        "data.backbone": ("--backbone", asked.backbone),
        "runs": ("--runs", asked.runs),
        "split.file": ("--runs", asked.runs / folds if asked.runs else None),
        "device": ("--device", asked.device),
        "encoder.mode": ("no --finetune", None if asked.finetune else "frozen"),
    }
    config = load_study_config(asked.recipe, asked.settings, options=options, protocol=asked.protocol)
    if asked.finetune == (config.fit.encoder.mode == "frozen"):
        raise MagnetError(
            "encoder.mode",
            expected="full, last or lora where encoders are fine-tuned, frozen where not",
            found=config.fit.encoder.mode,
            remedy="change it, or --finetune of 'train study', --bins of 'train cv'",
        )
    return config

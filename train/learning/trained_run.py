"""A trained run on disk: safetensors for the weights, JSON for everything needed to use them.

model.safetensors   `encoder.*`, unless it is frozen, and `model.*`, float32
run.json            configuration, backbone, panel, widths, versions: enough to build both anew without a store; with a
                    checksum of itself, and that of the weights
"""

from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save
from torch import Tensor

from cache.store import package_versions
from magnet_core.backbones.encoder import build_encoder
from magnet_core.backbones.find import find_backbone
from magnet_core.backbones.own_square import OwnSquare
from magnet_core.backbones.tuning import merge
from magnet_core.checksums import FILES, check_files, file_checksums
from magnet_core.environment import known_fault
from magnet_core.errors import MagnetError
from magnet_core.files import replacing
from magnet_core.model import MagNet
from magnet_core.records import Genes
from magnet_core.sealed import write_sealed
from magnet_core.settings.model import ModelConfig
from magnet_core.tensor_files import read_safetensors
from train.learning.stage_one import StageOne
from train.model.linear_path import LinearPath
from train.model.predictor import Predictor
from train.places import RUN, WEIGHTS, anew, read_run, trained_run
from train.settings.fit import FitConfig, as_recorded


@dataclass(frozen=True)
class TrainedRun:
    """What a run has learnt: a predictor, and the genes it predicts.

    features_settings_digest  digest of the settings of its training features; empty where the run does not record it
    stage_one                 how those were made, see `train.learning.stage_one`; None where the run does not record it
    """

    config: FitConfig
    panel: Genes
    predictor: Predictor
    features_settings_digest: str = ""
    stage_one: StageOne | None = None


def save_run(folder: Path, run: TrainedRun, *, extra: Mapping[str, Any]) -> None:
    """Write weights and description; the description comes last, so that a folder that has it is whole.

    Adapters of the encoder are merged into its weights first.
    """
    predictor = run.predictor
    if predictor.encoder is not None:
        merge(predictor.encoder)
    tensors = {name: value.detach().cpu().contiguous() for name, value in predictor.state_dict().items()}
    with replacing(folder / WEIGHTS) as partial:
        partial.write_bytes(save(tensors))  # `save_file` would hide the file from a group that shares the folder
    description = {
        "config": run.config.plain(),
        "backbone": run.config.data.backbone if predictor.encoder is None else predictor.encoder.spec.pinned_name,
        "features_settings_digest": run.features_settings_digest,
        "stage_one": None if run.stage_one is None else run.stage_one.plain(),
        "own_square": None if predictor.own is None else asdict(predictor.own),
        "fine_dim": predictor.model.fine_dim,
        "context_dims": predictor.model.context_dims,
        "panel": {"id": run.panel.ids.tolist(), "name": run.panel.names.tolist()},
        "versions": package_versions(),
        **extra,
        FILES: file_checksums(folder, [WEIGHTS]),
    }
    write_sealed(folder / RUN, description)


def load_run(folder: Path) -> TrainedRun:
    """Load a finished run; needs neither its store nor the network, and draws no weights of the encoder.

    A run whose description or weights are not what was written is an error.
    """
    folder = trained_run(folder)
    description = read_run(folder)
    remedy = anew(folder / RUN)
    check_files(folder, [WEIGHTS], description.get(FILES), remedy=remedy)
    weights = read_safetensors(folder / WEIGHTS, expected="the weights of a run", remedy=remedy)
    try:
        return _built(folder, description, weights)
    except (RuntimeError, LookupError, TypeError, ValueError, AttributeError) as error:
        if known_fault(error):
            raise
        found = f"{type(error).__name__}: {str(error).partition(chr(10))[0]}"
        raise MagnetError(folder, expected="a run whose parts fit together", found=found, remedy=remedy) from error


def _built(folder: Path, description: Mapping[str, Any], weights: Mapping[str, Tensor]) -> TrainedRun:
    panel = Genes(np.array(description["panel"]["id"]), np.array(description["panel"]["name"]))
    config = FitConfig.build(as_recorded(description["config"]), where=str(folder / RUN))
    frozen = config.encoder.mode == "frozen"
    encoder = None if frozen else build_encoder(find_backbone(description["backbone"]), str(folder / WEIGHTS))
    build = partial(
        MagNet,
        config.model,
        fine_dim=description["fine_dim"],
        context_dims=description["context_dims"],
        num_genes=len(panel),
    )
    _check_layers(config.model, description["context_dims"], weights)
    with torch.device("meta"):  # without memory: a description may state any size
        stated = {f"model.{name}": value.shape for name, value in build().state_dict().items()}
    if any(name not in weights or weights[name].shape != shape for name, shape in stated.items()):
        raise ValueError("weights of other sizes than its description states")
    model = build()
    own = description.get("own_square")  # which runs of before do not have
    linear = _linear_of(weights, model, share=config.ridge)
    predictor = Predictor(encoder, model, config.compute, own=OwnSquare(**own) if own else None, linear=linear)
    predictor.load_state_dict(weights)
    stage_one = description.get("stage_one")  # which runs of before do not have
    return TrainedRun(
        config,
        panel,
        predictor.eval(),
        description.get("features_settings_digest", ""),
        StageOne.from_plain(stage_one) if stage_one else None,
    )


def _linear_of(weights: Mapping[str, Tensor], model: MagNet, *, share: float) -> LinearPath | None:
    """Return the linear path that a run has beside its network, if it has one; other sizes of it are an error."""
    if "linear.weight" not in weights:
        return None
    if len(weights["linear.weight"]) != model.fine_dim + sum(model.context_dims.values()):
        raise ValueError("a linear path of other sizes than its description states")
    return LinearPath(weights["linear.weight"], weights["linear.bias"], share=share, contexts=model.context_dims)


def _check_layers(config: ModelConfig, contexts: Collection[str], weights: Collection[str]) -> None:
    """Refuse weights without the last of the layers that are stated, before so many are built."""
    stated = [f"model.attend.{name}.norm.weight" for name in contexts if config.use_multires]
    if config.use_gat:
        graph = "model.decode_fine.graph"
        stated.append(f"{graph}.rounds.{config.rounds - 1}.norm.weight")
        stated.append(f"{graph}.transformer.{config.transformer_layers - 1}.norm1.weight")
    if missing := [name for name in stated if name not in weights]:
        raise ValueError(f"weights of fewer layers than its description states: no {missing[0]}")

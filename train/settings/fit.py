"""Settings of stage two: one frozen tree, from defaults (the paper's), a TOML recipe, and `--set a.b=c`.

The parts live beside their owners (model, losses, expression); here are those of the run itself.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from magnet_core.backbones import TuningConfig
from magnet_core.errors import MagnetError
from magnet_core.expression import NormaliseConfig
from magnet_core.losses import LossConfig
from magnet_core.model import ModelConfig
from train.settings.build import build, check_limits, read_values


@dataclass(frozen=True)
class DataConfig:
    """What is learnt from: the store, the target, the features, the gene panel (paper section 3: 250 genes).

    settings_digest  chooses among several settings of one backbone in the store; empty where there is only one
    panel_by         what the panel's genes are highest in: mean count, or variance of log(1 + count)
    include          names or ids of genes that are in the panel whatever their mean, in the place of its last ones
    standardise      bring each slide's features to mean 0 and sd 1, see `train.data.slide.FeatureScale`
    """

    store: Path = Path("store")
    target: int = 8
    backbone: str = "resnet50"
    settings_digest: str = ""
    panel: int = 250
    panel_by: Literal["mean", "variance"] = "mean"
    include: tuple[str, ...] = ()
    standardise: bool = True
    normalise: NormaliseConfig = field(default_factory=NormaliseConfig)

    def __post_init__(self) -> None:
        check_limits(self, "data", {"panel": (1, math.inf)})


@dataclass(frozen=True)
class SplitConfig:
    """The folds, drawn once from `seed`, kept in `file` and reused by every run.

    folds  how many; 0 leaves one patient out at a time
    by     what is never on both sides: a patient, or, as in the paper, a slide alone; slides of one patient are no
           independent test
    """

    folds: int = 4
    by: Literal["patient", "slide"] = "patient"
    seed: int = 0
    file: Path = Path("runs/folds.json")


@dataclass(frozen=True)
class OptimConfig:
    """The optimiser (paper section 3: SGD, momentum 0.9, weight decay 1e-4, 1e-4 to 1 % by cosine, batch 256).

    encoder_lr  learning rate of the fine encoder, as a factor of `lr`
    warmup      share of all steps in which the learning rate rises linearly
    batch_size  fine nodes of a subgraph
    clip_norm   the gradient is scaled down to this norm; 0 leaves it
    ema         share of the past that a running average of the weights keeps at each step, such as 0.999; 0 for none
    """

    name: Literal["sgd", "adamw"] = "sgd"
    lr: float = 1e-4
    encoder_lr: float = 1.0
    momentum: float = 0.9
    weight_decay: float = 1e-4
    final_lr: float = 0.01
    warmup: float = 0.0
    epochs: int = 50
    batch_size: int = 256
    clip_norm: float = 0.0
    ema: float = 0.0

    def __post_init__(self) -> None:
        infinity = float("inf")
        limits = {"lr": (0, infinity), "epochs": (1, infinity), "batch_size": (1, infinity), "momentum": (0, 1)}
        limits |= {"encoder_lr": (0, infinity), "weight_decay": (0, infinity), "clip_norm": (0, infinity)}
        limits |= {"final_lr": (0, 1), "warmup": (0, 1), "ema": (0, 1)}
        check_limits(self, "optim", limits, above={"lr"})


@dataclass(frozen=True)
class ValidationConfig:
    """Slides of the training patients that choose the epoch whose weights are kept; never the test slides.

    share     of the training patients, rounded down: with few of them, none, and the last epoch is kept
    patience  epochs without a better score before training stops; 0 trains all of them
    """

    share: float = 0.2
    patience: int = 0

    def __post_init__(self) -> None:
        check_limits(self, "validation", {"share": (0, 0.9), "patience": (0, float("inf"))})


@dataclass(frozen=True)
class ComputeConfig:
    """How a run is computed.

    precision           of the fine encoder: auto (bf16 on a GPU), fp32 or bf16
    micro_batch         patches encoded at a time, with the gradients of all at once; 0 encodes a subgraph in one piece
    compile             compile the fine encoder
    resident            cached features are held on the device: auto (where they fit into half of its free memory)
    checkpoint_minutes  between two checkpoints
    """

    precision: Literal["auto", "fp32", "bf16"] = "auto"
    micro_batch: int = 0
    compile: bool = False
    resident: Literal["auto", "always", "never"] = "auto"
    checkpoint_minutes: float = 10.0

    def __post_init__(self) -> None:
        check_limits(self, "compute", {"micro_batch": (0, float("inf")), "checkpoint_minutes": (0, float("inf"))})


@dataclass(frozen=True)
class FitConfig:
    """One `train fit`.

    overwrite  replace a finished run of the same name, which is refused otherwise
    sampler    how a slide is cut into subgraphs: `compact` neighbourhoods, or `random` rows as the authors do
    halo       hops of neighbours that join each subgraph as context without loss; at prediction it is always full
    augment    turn each subgraph's pixels by one of the 8 symmetries of the square
    baselines  fit the plain baselines too, for the table
    """

    name: str = ""
    overwrite: bool = False
    fold: int = 0
    runs: Path = Path("runs")
    seed: int = 0
    device: str = "auto"
    sampler: Literal["compact", "random"] = "compact"
    halo: int = 0
    augment: bool = True
    baselines: bool = True
    data: DataConfig = field(default_factory=DataConfig)
    split: SplitConfig = field(default_factory=SplitConfig)
    encoder: TuningConfig = field(default_factory=TuningConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    loss: LossConfig = field(default_factory=LossConfig)
    optim: OptimConfig = field(default_factory=OptimConfig)
    validation: ValidationConfig = field(default_factory=ValidationConfig)
    compute: ComputeConfig = field(default_factory=ComputeConfig)

    def __post_init__(self) -> None:
        check_limits(self, "", {"halo": (0, 8)})
        check_name(self.name)

    @property
    def run_name(self) -> str:
        """The run's folder: `name`, or one made of target, backbone and fold."""
        backbone = self.data.backbone.replace(":", "-").replace("/", "-")
        return self.name or f"{backbone}-{self.data.target}um-fold{self.fold}"


def load_config(recipe: Path | None, settings: Sequence[str] = ()) -> FitConfig:
    """Read a recipe (TOML, or none for the defaults) and apply `a.b=c` settings over it."""
    values, where = read_values(recipe, settings)
    return build_fit(values, where=where)


def build_fit(values: Mapping[str, Any], *, where: str) -> FitConfig:
    """Build the configuration of a fit; a recipe's tables for other commands are passed over."""
    return build(FitConfig, {key: value for key, value in values.items() if key not in OTHER_TABLES}, where=where)


def check_name(name: str) -> None:
    """Refuse the name of a folder that would lie elsewhere than below --runs."""
    if Path(name).is_absolute() or ".." in Path(name).parts:
        raise MagnetError("--name", expected="a folder below --runs", found=f"'{name}'", remedy="change --name")


OTHER_TABLES = ("rivals",)  # of a recipe, read by `train study`

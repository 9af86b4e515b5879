"""Settings of stage two: one frozen tree, from defaults (the paper's), a TOML recipe, options, and `--set a.b=c`.

The model's and the loss's own settings lie in `magnet_core.settings`; here are those of the run itself.
"""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal

from pydantic import Field, field_validator

from magnet_core.errors import MagnetError
from magnet_core.levels import TARGETS, targets_in_words
from magnet_core.settings import Layers, Options, Settings, flat, merged, nested, refusal, without
from magnet_core.settings.limits import MOST_EPOCHS, MOST_GENES, MOST_ROWS, MOST_SEEDS
from magnet_core.settings.loss import LossConfig
from magnet_core.settings.model import ModelConfig
from magnet_core.settings.normalise import NormaliseConfig
from magnet_core.settings.tuning import TuningConfig

# Settings that do not change what is learnt, or not by more than rounding: two that differ in them are the same.
OUTPUT_NEUTRAL = frozenset({"device", "overwrite", "compute.checkpoint_minutes", "compute.resident"})
# Settings that came later, by their dotted names, and what was meant before there were any. Records without them are
# read so, and at these values they are in no name of a cell, so that older cells keep their names.
BEFORE: dict[str, Any] = {
    "data.own": False,
    "data.contexts": "paired",
    "validation.few": "none",
    "validation.refit": True,
    "seeds": 1,
    "ridge": 0.0,
    "finetune.epochs": 0,
    "finetune.lr": 1e-3,
    "finetune.batch_size": 128,
}
OTHER_TABLES = ("rivals",)  # of a recipe, read by `train study`


class DataConfig(Settings):
    """What is learnt from: the store, the target, the features, the gene panel (paper section 3: 250 genes).

    target           µm, of `magnet_core.levels.TARGETS`: 8 or 16, the bins of Visium HD, or 55, spots
    settings_digest  chooses among several settings of one backbone in the store; empty where there is only one
    panel_by         what the panel's genes are highest in: mean count, or variance of log(1 + count)
    include          names or ids of genes that are in the panel whatever their mean, in the place of its last ones
    standardise      bring each slide's features to mean 0 and sd 1, see `train.data.slide.FeatureScale`
    own              learn from what a row's own square shows beside its whole patch, where the store has it
    contexts         what a row sees of spots and regions: the four around it, weighed by where it lies, so that no map
                     shows where tiles end; or, as the paper pairs them, the one that holds it
    """

    table: ClassVar[str] = "data"

    store: Path = Path("store")
    target: int = 8
    backbone: str = "resnet50"
    settings_digest: str = ""
    panel: int = Field(default=250, ge=1, le=MOST_GENES)
    panel_by: Literal["mean", "variance"] = "mean"
    include: tuple[str, ...] = ()
    standardise: bool = True
    own: bool = True
    contexts: Literal["blended", "paired"] = "blended"
    normalise: NormaliseConfig = NormaliseConfig()

    @field_validator("target")
    @classmethod
    def _check_target(cls, um: int) -> int:
        if um not in TARGETS:
            raise refusal(expected=targets_in_words(), found=um, remedy="choose one of them")
        return um


class SplitConfig(Settings):
    """The folds, drawn once from `seed`, kept in `file` and reused by every run.

    folds  how many; 0 leaves one patient out at a time
    by     what is never on both sides: a patient, or, as in the paper, a slide alone; slides of one patient are no
           independent test
    """

    table: ClassVar[str] = "split"

    folds: int = Field(default=4, le=MOST_ROWS)
    by: Literal["patient", "slide"] = "patient"
    seed: int = 0
    file: Path = Path("runs/folds.json")


class OptimConfig(Settings):
    """The optimiser (paper section 3: SGD, momentum 0.9, weight decay 1e-4, 1e-4 to 1 % by cosine, batch 256).

    encoder_lr  learning rate of the fine encoder, as a factor of `lr`
    warmup      share of all steps in which the learning rate rises linearly
    batch_size  fine nodes of a subgraph
    clip_norm   the gradient is scaled down to this norm; 0 leaves it
    ema         share of the past that a running average of the weights keeps at each step, such as 0.999; 0 for none
    """

    table: ClassVar[str] = "optim"

    name: Literal["sgd", "adamw"] = "sgd"
    lr: float = Field(default=1e-4, gt=0)
    encoder_lr: float = Field(default=1.0, ge=0)
    momentum: float = Field(default=0.9, ge=0, le=1)
    weight_decay: float = Field(default=1e-4, ge=0)
    final_lr: float = Field(default=0.01, ge=0, le=1)
    warmup: float = Field(default=0.0, ge=0, le=1)
    epochs: int = Field(default=50, ge=1, le=MOST_EPOCHS)
    batch_size: int = Field(default=256, ge=1, le=MOST_ROWS)
    clip_norm: float = Field(default=0.0, ge=0)
    ema: float = Field(default=0.0, ge=0, le=1)


class FinetuneConfig(Settings):
    """How MagNet's encoder is trained with heads that have learnt on cached features first, as `optim` says.

    An encoder that is trained below untrained heads loses what it knew (Kumar et al. 2022), and an epoch on cached
    features takes a small part of one with the encoder. All that is not said here is as in `optim`.

    epochs      with the encoder; 0: heads and encoder learn together from the start, all epochs of `optim`
    lr          learning rate of the heads, of which `optim.encoder_lr` makes that of the encoder
    batch_size  fine nodes of a subgraph
    """

    table: ClassVar[str] = "finetune"

    epochs: int = Field(default=0, ge=0, le=MOST_EPOCHS)
    lr: float = Field(default=1e-3, gt=0)
    batch_size: int = Field(default=128, ge=1, le=MOST_ROWS)


class ValidationConfig(Settings):
    """What of the training side chooses the epoch whose weights are kept; never the test slides.

    share     of the training patients, rounded down
    few       where that is no patient: hold_out holds out one, or blocks of tissue where there is one patient alone;
              none holds out nothing, and the last epoch is kept
    refit     with so few, train again from the start on all training slides, as many epochs as were chosen
    patience  epochs without a better score before training stops; 0 trains all of them
    """

    table: ClassVar[str] = "validation"

    share: float = Field(default=0.2, ge=0, le=0.9)
    few: Literal["hold_out", "none"] = "hold_out"
    refit: bool = True
    patience: int = Field(default=0, ge=0, le=MOST_EPOCHS)

    def num_patients(self, patients: int) -> int:
        """How many of the training patients are held out: the share, rounded down, or one; of a single patient none."""
        least = 1 if self.holds_out_few(patients) and patients > 1 else 0
        return max(math.floor(self.share * patients), least)

    def holds_out_few(self, patients: int) -> bool:
        """Whether something is held out although the share of so many patients comes to none."""
        return self.few == "hold_out" and self.share > 0 and math.floor(self.share * patients) == 0

    def meant(self, patients: int) -> "ValidationConfig":
        """The same settings for so many patients, each that has no say there as it was meant before it existed."""
        if self.holds_out_few(patients):
            return self
        return self.changed(**{name: BEFORE[f"{self.table}.{name}"] for name in ("few", "refit")})


class ComputeConfig(Settings):
    """How a run is computed.

    precision           of the fine encoder: auto (bf16 on a GPU), fp32 or bf16
    micro_batch         patches encoded at a time, with the gradients of all at once; 0 encodes a subgraph in one piece
    compile             compile the fine encoder
    resident            cached features are held on the device: auto (where they fit into half of its free memory)
    checkpoint_minutes  between two checkpoints
    """

    table: ClassVar[str] = "compute"

    precision: Literal["auto", "fp32", "bf16"] = "auto"
    micro_batch: int = Field(default=0, ge=0, le=MOST_ROWS)
    compile: bool = False
    resident: Literal["auto", "always", "never"] = "auto"
    checkpoint_minutes: float = Field(default=10.0, ge=0)


class FitConfig(Settings):
    """One `train fit`.

    overwrite  replace a finished run of the same name, which is refused otherwise
    seeds      trainings of a learnt system on a fold, from `seed` on; of several, predictions are the mean
    sampler    how a slide is cut into subgraphs: `compact` neighbourhoods, or `random` rows as the authors do
    halo       hops of neighbours that join each subgraph as context without loss; at prediction it is always full
    ridge      share of a ridge on cached features in MagNet's predictions; of frozen bins alone, worth it on few slides
    augment    turn each subgraph's pixels by one of the 8 symmetries of the square
    baselines  fit the plain baselines too, for the table
    """

    name: str = ""
    overwrite: bool = False
    fold: int = 0
    runs: Path = Path("runs")
    seed: int = 0
    seeds: int = Field(default=1, ge=1, le=MOST_SEEDS)
    device: str = Field(
        default="auto", pattern=r"^(auto|cpu|mps|cuda(:\d+)?)$", description="auto, cpu, cuda or cuda:N"
    )
    sampler: Literal["compact", "random"] = "compact"
    halo: int = Field(default=0, ge=0, le=8)
    augment: bool = True
    ridge: float = Field(default=0.0, ge=0, le=1)
    baselines: bool = True
    data: DataConfig = DataConfig()
    split: SplitConfig = SplitConfig()
    encoder: TuningConfig = TuningConfig()
    model: ModelConfig = ModelConfig()
    loss: LossConfig = LossConfig()
    optim: OptimConfig = OptimConfig()
    finetune: FinetuneConfig = FinetuneConfig()
    validation: ValidationConfig = ValidationConfig()
    compute: ComputeConfig = ComputeConfig()

    @field_validator("name")
    @classmethod
    def _check_name(cls, name: str) -> str:
        check_name(name)
        return name

    def meant(self, patients: int) -> "FitConfig":
        """The same settings for so many training patients, see `ValidationConfig.meant`."""
        return self.changed(validation=self.validation.meant(patients))

    @property
    def starts_with_heads(self) -> bool:
        """Whether heads learn on cached features before the encoder is trained with them."""
        return self.encoder.mode != "frozen" and self.finetune.epochs > 0

    def of_heads(self) -> "FitConfig":
        """The same settings for the training on cached features that comes first."""
        return self.changed(encoder={"mode": "frozen"}, finetune={"epochs": 0})

    def of_encoder(self) -> "FitConfig":
        """The same settings for the training with the encoder that comes after it, or at once."""
        if not self.starts_with_heads:
            return self
        return self.changed(optim={name: getattr(self.finetune, name) for name in ("epochs", "lr", "batch_size")})

    @property
    def run_name(self) -> str:
        """The run's folder: `name`, or one made of target, backbone and fold."""
        backbone = self.data.backbone.replace(":", "-").replace("/", "-")
        return self.name or f"{backbone}-{self.data.target}um-fold{self.fold}"


def load_config(
    recipe: Path | None = None, assignments: Sequence[str] = (), *, options: Options | None = None
) -> FitConfig:
    """Build a fit's settings from a recipe (TOML, or none for the defaults), options over it, `a.b=c` over both."""
    return build_fit(Layers().add_given(recipe, options, assignments))


def build_fit(layers: Layers) -> FitConfig:
    """Build the settings of a fit; a recipe's tables for other commands are passed over."""
    config = FitConfig.build(without(layers.values, OTHER_TABLES), where=layers.source)
    if config.ridge > 0 and config.encoder.mode != "frozen":
        raise MagnetError(
            "ridge",
            expected="0 where the bin encoder is trained, as the ridge is of cached features",
            found=f"{config.ridge}",
            remedy="--bins frozen, no --finetune; or --set ridge=0",
        )
    return config


def as_recorded(values: Mapping[str, Any]) -> dict[str, Any]:
    """Complete the recorded settings of a fit: those that came later are as was meant before there were any."""
    return merged(nested(BEFORE, where="BEFORE"), values)


def without_later(values: Mapping[str, Any], before: Mapping[str, Any]) -> dict[str, Any]:
    """Leave out of nested settings those that came later, where they are as was meant before there were any."""
    kept = {name: value for name, value in flat(values).items() if name not in before or before[name] != value}
    return nested(kept, where="settings")


def check_name(name: str) -> None:
    """Refuse the name of a folder that would lie elsewhere than below --runs."""
    if Path(name).is_absolute() or ".." in Path(name).parts:
        raise MagnetError("--name", expected="a folder below --runs", found=f"'{name}'", remedy="change --name")

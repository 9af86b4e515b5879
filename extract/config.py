"""Settings of stage one, each beside what it means. What changes the bytes goes into `Geometry` and `Embedding`."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from magnet_core.device import PRECISIONS
from magnet_core.errors import MagnetError
from magnet_core.levels import TARGETS
from magnet_core.registry import look_up
from magnet_core.symmetry import NUM_SYMMETRIES
from magnet_core.units import BIN_PATCH_UM, REGION_PATCH_UM, SPOT_PATCH_UM

SAMPLINGS = ("windows", "uniform", "all")


MOST_TOKENS = 16  # a side: as many as the finest of the usual encoders, ViT-L/14, has in 224 px


@dataclass(frozen=True)
class GeometryConfig:
    """Which rows a slide gets, and how large their patches are (paper section 3; lengths in µm).

    targets        prediction targets the store is made for: 8, 16 and 55
    sampling       how bins and spots are drawn, see `extract.sampling`
    bins, spots    rows a slide, for each bin size, and for spots
    window         side of a sampling window, in bins (half as many spots)
    neighbours     k of the kNN graphs
    context_hops   context squares kept around those that are paired, so that graphs of L rounds are whole
    """

    targets: tuple[int, ...] = (8, 16, 55)
    sampling: Literal["windows", "uniform", "all"] = "windows"
    bins: int = 6000
    spots: int = 2500
    window: int = 24
    neighbours: int = 8
    context_hops: int = 2
    bin_patch_um: float = BIN_PATCH_UM
    spot_patch_um: float = SPOT_PATCH_UM
    region_patch_um: float = REGION_PATCH_UM
    seed: int = 0

    def __post_init__(self) -> None:
        if not self.targets or set(self.targets) - set(TARGETS):
            known = ", ".join(map(str, TARGETS))
            _refuse("--targets", f"some of {known}", str(self.targets))
        if self.sampling not in SAMPLINGS:
            _refuse("--sampling", f"one of {', '.join(SAMPLINGS)}", f"'{self.sampling}'")
        _refuse_below_one("--bins", self.bins)
        _refuse_below_one("--spots", self.spots)
        for name in ("window", "neighbours", "bin_patch_um", "spot_patch_um", "region_patch_um"):
            if getattr(self, name) <= 0:
                _refuse(name, "a positive number", str(getattr(self, name)))
        if self.seed < 0:
            _refuse("--seed", "0 or more", str(self.seed))


@dataclass(frozen=True)
class EmbeddingConfig:
    """Which frozen encoder runs, and what is kept of its output.

    weights     'pretrained', 'random' (drawn from `seed`) or the path of a checkpoint
    token_grid  tokens kept along each side of a patch: 4 keeps 4 × 4, 1 keeps the pooled feature only
    views       1, or 8: the features of every symmetry of the square, so that all levels turn together in training
    precision   of the encoder's arithmetic; auto: bf16 on CUDA, fp32 on the CPU
    """

    backbone: str = "resnet50"
    weights: str = "pretrained"
    token_grid: int = 4
    views: int = 1
    precision: str = "auto"
    seed: int = 0

    def __post_init__(self) -> None:
        if self.views not in (1, NUM_SYMMETRIES):
            _refuse("--views", f"1 or {NUM_SYMMETRIES}", str(self.views))
        look_up(PRECISIONS, self.precision, where="--precision")
        if not 1 <= self.token_grid <= MOST_TOKENS:
            _refuse("--tokens", f"1 to {MOST_TOKENS} a side", str(self.token_grid))


@dataclass(frozen=True)
class RunConfig:
    """One `extract run`: what goes in and out, and the settings that leave the bytes as they are.

    batch_size  spot patches the encoder takes at a time; smaller and larger patches by their area
    workers     threads that decode the slide
    compile     let torch compile the encoder first: slower to start, faster after
    """

    samples: Path = Path("samples.csv")
    store: Path = Path("store")
    geometry: GeometryConfig = field(default_factory=GeometryConfig)
    embedding: EmbeddingConfig = field(default_factory=EmbeddingConfig)
    slides: tuple[str, ...] = ()  # none named: all
    device: str = "auto"
    batch_size: int = 64
    workers: int = 2
    compile: bool = False

    def __post_init__(self) -> None:
        _refuse_below_one("--batch-size", self.batch_size)
        _refuse_below_one("--workers", self.workers)


def _refuse_below_one(option: str, number: int) -> None:
    if number < 1:
        _refuse(option, "1 or more", str(number))


def _refuse(where: str, expected: str, found: str) -> None:
    raise MagnetError(where, expected=expected, found=found, remedy="change the setting")

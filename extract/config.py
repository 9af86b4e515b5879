"""Settings of stage one, each beside what it means; those of a run add up from a recipe, options and `--set`.

Imports nothing that takes long, so that help shows the defaults and a mistake is told of at once.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from magnet_core.backbones.names import named_file, named_spec, split_revision
from magnet_core.errors import MagnetError
from magnet_core.levels import TARGETS
from magnet_core.settings import Layers, Settings, refusal, without
from magnet_core.settings.device import Device
from magnet_core.settings.limits import MOST_ROWS, MOST_WIDTH
from magnet_core.units import BIN_PATCH_UM, REGION_PATCH_UM, SPOT_PATCH_UM, WORKING_MPP, patch_px

MOST_MAPS = 3  # of `magnet_core.backbones.own_square`, which brings torch
MOST_TOKENS = 16  # a side: as many as the finest of the usual encoders, ViT-L/14, has in 224 px

MOST_PATCH_UM = 1024.0
LEAST_PATCH_PX, MOST_PATCH_PX = 16, 4096  # a side: one token of a ViT/16, and 48 MiB
FINEST_MPP, COARSEST_MPP = 0.1, 4.0  # a scan at 100×, and one at 2.5×
MOST_PATCHES = 4096  # of a spot, 224 px a side, that are encoded at a time: 2.3 GiB as they enter the encoder
MOST_NEIGHBOURS = 256
MOST_HOPS = 64
MOST_WORKERS = 256


def _check_targets(targets: object) -> tuple[int, ...]:
    """Put targets in order; what is not in the table is refused."""
    named = targets if isinstance(targets, list | tuple) else ()
    unknown = [target for target in named if not isinstance(target, int) or target not in TARGETS]
    if unknown or not named:
        expected, found = f"some of {', '.join(map(str, TARGETS))}", unknown[0] if unknown else targets
        raise refusal(expected=expected, found=repr(found), remedy="change the setting")
    return tuple(sorted(named))


Targets = Annotated[tuple[int, ...], BeforeValidator(_check_targets)]  # µm
Sha256 = Annotated[
    str, Field(pattern=r"^([0-9a-f]{64})?$", description="64 hexadecimal digits, as sha256sum says them")
]
Stain = Literal["as_is", "matched"]
Length = Annotated[float, Field(gt=0, le=MOST_PATCH_UM)]


# Settings of a run that say where, how fast, of what slides or whether something is computed, never what: in no digest.
OUTPUT_NEUTRAL = (
    "samples", "store", "slides", "device", "batch_size", "workers", "compile", "pixels", "embedding.weights_sha256"
)  # fmt: skip
# Later settings; at these values the bytes are those of before, and so are the digests, from which they are left out.
LATER = {"own": 0, "stain": "as_is"}
# In the place of these the digest of features has the checksum of the weights that they lead to.
BY_CHECKSUM = ("embedding.weights", "embedding.seed")


class GeometryConfig(Settings):
    """Which rows a slide gets, and how large their patches are (paper section 3; lengths in µm).

    targets        prediction targets the store is made for, of `magnet_core.levels.TARGETS`
    sampling       how bins and spots are drawn, see `extract.sampling`
    bins, spots    rows a slide, for each bin size, and for spots
    window         side of a sampling window, in bins (half as many spots)
    neighbours     k of the kNN graphs
    context_hops   context squares kept around those that are paired, so that graphs of L rounds are whole
    bin_patch_um, spot_patch_um, region_patch_um  sides of the patches. On bins the last two are also the sides of the
                   squares whose bins are summed; a measured spot keeps its counts, whatever its patch
    """

    table = "geometry"
    targets: Targets = (8, 16, 55)
    sampling: Literal["windows", "uniform", "all"] = "windows"
    bins: int = Field(default=6000, ge=1, le=MOST_ROWS)
    spots: int = Field(default=2500, ge=1, le=MOST_ROWS)
    window: int = Field(default=24, ge=1, le=MOST_WIDTH)
    neighbours: int = Field(default=8, ge=1, le=MOST_NEIGHBOURS)
    context_hops: int = Field(default=2, ge=0, le=MOST_HOPS)
    bin_patch_um: Length = BIN_PATCH_UM
    spot_patch_um: Length = SPOT_PATCH_UM
    region_patch_um: Length = REGION_PATCH_UM
    seed: int = Field(default=0, ge=0)


class EmbeddingConfig(Settings):
    """Which frozen encoder runs, and what is kept of its output.

    backbone    its name, and after an `@` the branch, tag or commit on the hub that its weights are taken from
    weights     'pretrained', 'random' (drawn from `seed`) or the path of a checkpoint
    weights_sha256  of the file of weights, in 64 hexadecimal digits; a file of another is not loaded; empty: any
    token_grid  tokens kept along each side of a patch: 4 keeps 4 × 4, 1 keeps the pooled feature only
    own         maps of the encoder that are kept of a row's own square, the 8 µm of a bin in a patch of 28, see
                `magnet_core.backbones.own_square`; 0 keeps nothing, to save space
    views       1, or 8: the features of every symmetry of the square, so that all levels turn together in training
    precision   of the encoder's arithmetic; auto: bf16 on CUDA, fp32 on the CPU
    """

    table = "embedding"
    backbone: str = "resnet50"
    weights: str = "pretrained"
    weights_sha256: Sha256 = ""
    token_grid: int = Field(default=4, ge=1, le=MOST_TOKENS)
    own: int = Field(default=2, ge=0, le=MOST_MAPS)
    views: Literal[1, 8] = 1
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    seed: int = Field(default=0, ge=0)

    @property
    def backbone_name(self) -> str:
        """The backbone as files and digests name it: their weights are known by checksum, whatever their revision."""
        return split_revision(self.backbone)[0]

    @property
    def pins(self) -> dict[str, str]:
        """What the user asked the weights to be, as far as it was said: their revision on the hub, their sha256."""
        said = {"revision": split_revision(self.backbone)[1], "sha256": self.weights_sha256}
        return {name: value for name, value in said.items() if value}


class RunConfig(Settings):
    """One `extract run`: what goes in and out, and the settings that leave the bytes as they are.

    slides      ids of the slides to extract; none named: all
    device      of the encoder; auto: the first GPU if there is one
    batch_size  spot patches the encoder takes at a time; smaller and larger patches by their area
    workers     threads that decode the slide
    compile     let torch compile the encoder first: slower to start, faster after
    pixels      keep the pixels of fine rows, for training an encoder; a store without gets them from a later run
    stain       as_is, or matched: the colours of all slides are brought to one stain, see `magnet_core.slides.stain`
    working_mpp  µm/px at which patches of all levels are cut and reach the encoder
    """

    samples: Path = Path("samples.csv")
    store: Path = Path("store")
    geometry: GeometryConfig = GeometryConfig()
    embedding: EmbeddingConfig = EmbeddingConfig()
    slides: tuple[str, ...] = ()
    device: Device = "auto"
    batch_size: int = Field(default=64, ge=1, le=MOST_PATCHES)
    workers: int = Field(default=2, ge=1, le=MOST_WORKERS)
    compile: bool = False
    pixels: bool = True
    stain: Stain = "as_is"
    working_mpp: float = Field(default=WORKING_MPP, ge=FINEST_MPP, le=COARSEST_MPP)

    @model_validator(mode="after")
    def _patches_can_be_encoded(self) -> Self:
        for name in ("bin_patch_um", "spot_patch_um", "region_patch_um"):
            patch_um = getattr(self.geometry, name)
            if not LEAST_PATCH_PX <= patch_px(patch_um, self.working_mpp) <= MOST_PATCH_PX:
                raise refusal(
                    f"geometry.{name}",
                    "working_mpp",
                    expected=f"patches of {LEAST_PATCH_PX} to {MOST_PATCH_PX:,} px a side",
                    found=f"{patch_px(patch_um, self.working_mpp):,} px, {patch_um:g} µm at {self.working_mpp:g} µm/px",
                    remedy=f"change geometry.{name} or working_mpp",
                )
        return self

    def deciding(self, part: Literal["geometry", "embedding"]) -> dict[str, Any]:
        """Return the settings on which the bytes of a geometry file, or of a feature file, depend.

        A setting of the run that is not declared neutral is among them, so that it changes what files are called.
        """
        plain = without(self.plain(), (*OUTPUT_NEUTRAL, *BY_CHECKSUM))
        tables = {name: plain.pop(name) for name in ("geometry", "embedding")}
        tables["embedding"]["backbone"] = self.embedding.backbone_name
        deciding = {**plain, **tables[part]}
        return {name: value for name, value in deciding.items() if name not in LATER or value != LATER[name]}


def load_run(
    recipe: Path | None, options: Mapping[str, tuple[str, Any]], assignments: Sequence[str] | None
) -> RunConfig:
    """Build the settings of a run: defaults, a recipe over them, options over it, `a.b=c` settings over all.

    An error names the source of the setting that is wrong, a backbone or a checkpoint that is not there included.
    """
    layers = Layers().add_recipe(recipe).add_options(options).add_assignments(assignments)
    config = RunConfig.build(layers.values, where=layers.source)
    embedding = config.embedding
    named_spec(embedding.backbone, where=f"{layers.source('embedding.backbone')}: embedding.backbone")
    named_file(embedding.weights, where=f"{layers.source('embedding.weights')}: embedding.weights")
    if embedding.weights_sha256 and embedding.weights == "random":
        where = f"{layers.source('embedding.weights_sha256')}: embedding.weights_sha256"
        expected, found = "weights from a file or the hub", "random ones, which have no file"
        raise MagnetError(where, expected=expected, found=found, remedy="leave one of the two out")
    return config

"""Options of `extract run`; one that is not given is None, so that a recipe can speak. Help shows the defaults."""

from pathlib import Path
from typing import Annotated, Any

import typer

from extract.config import EmbeddingConfig, GeometryConfig, RunConfig

RUN, GEOMETRY, EMBEDDING = RunConfig(), GeometryConfig(), EmbeddingConfig()  # for the defaults that help shows
SHEET = "Sample sheet: slide_id,image,counts,platform,mpp,patient."
WHOLE_WINDOWS = (
    f"Windows are kept whole ({GEOMETRY.window} × {GEOMETRY.window} bins, half as many spots a side), "
    "so a slide gets up to one window more."
)


def _option(*names: str, default: object, text: str) -> Any:
    return typer.Option(*names, help=f"{text}  [default: {default}]", show_default=False)


SamplesOption = Annotated[Path | None, _option(default=RUN.samples, text=SHEET)]
StoreOption = Annotated[Path | None, _option(default=RUN.store, text="Store to write to.")]
BackboneOption = Annotated[
    str | None,
    _option(
        default=EMBEDDING.backbone,
        text="A name of 'extract backbones', timm:NAME, hf-hub:ORG/NAME; or one @REVISION.",
    ),
]
WeightsOption = Annotated[
    str | None, _option(default=EMBEDDING.weights, text="pretrained, random, or a checkpoint file.")
]
WeightsSha256Option = Annotated[
    str | None, _option(default="any", text="sha256 that the file of weights must have; another is not loaded.")
]
TokensOption = Annotated[
    int | None, _option(default=EMBEDDING.token_grid, text="Tokens along each side of a context patch; 1: pooled only.")
]
OwnOption = Annotated[
    int | None,
    _option(default=EMBEDDING.own, text="Maps of the encoder kept of a bin's own square; 0: none, to save space."),
]
ViewsOption = Annotated[
    int | None, _option(default=EMBEDDING.views, text="8: features of every symmetry of a patch, for augmentation.")
]
PrecisionOption = Annotated[
    str | None, _option(default=EMBEDDING.precision, text="fp32, bf16, fp16; auto: bf16 on CUDA.")
]
CompileOption = Annotated[
    bool | None, _option("--compile/--no-compile", default="no-compile", text="Let torch compile the encoder.")
]
PixelsOption = Annotated[
    bool | None,
    _option("--pixels/--no-pixels", default="pixels", text="Keep pixels of bins and spots; to train encoders only."),
]
StainOption = Annotated[
    str | None, _option(default=RUN.stain, text="matched: the colours of all slides are brought to one stain.")
]
TargetsOption = Annotated[
    str | None, _option(default=",".join(map(str, GEOMETRY.targets)), text="Prediction targets in µm, comma-separated.")
]
SamplingOption = Annotated[str | None, _option(default=GEOMETRY.sampling, text="windows, uniform or all.")]
BinsOption = Annotated[
    int | None, _option(default=GEOMETRY.bins, text=f"Bins a slide, for each bin size. {WHOLE_WINDOWS}")
]
SpotsOption = Annotated[int | None, _option(default=GEOMETRY.spots, text=f"Spots a slide. {WHOLE_WINDOWS}")]
SeedOption = Annotated[int | None, _option(default=GEOMETRY.seed, text="For sampling and random weights.")]
SlideOption = Annotated[list[str] | None, typer.Option(help="Only this slide; may be repeated.")]
DeviceOption = Annotated[str | None, _option(default=RUN.device, text="auto, cpu, cuda or cuda:N.")]
BatchSizeOption = Annotated[
    int | None, _option(default=RUN.batch_size, text="Spot patches the encoder takes at a time; larger ones by area.")
]
WorkersOption = Annotated[int | None, _option(default=RUN.workers, text="Threads that decode the slide.")]
RecipeOption = Annotated[Path | None, typer.Option(help="TOML file of settings, such as recipes/extract.toml.")]
SetOption = Annotated[list[str] | None, typer.Option("--set", help="One setting, such as geometry.window=12.")]


def split_targets(text: str | None) -> list[int | str] | None:
    """Read '8,16,55' as numbers; what is none stays text, and `GeometryConfig` says what it may be."""
    if text is None:
        return None
    return [int(part) if part.isdigit() else part for part in map(str.strip, text.split(",")) if part]

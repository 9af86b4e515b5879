"""What commands of stage two have in common: their options, and lists with commas. Imports nothing that takes long."""

import functools
import os
import re
from collections.abc import Callable
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from magnet_core.commandline import with_options
from magnet_core.errors import MagnetError
from magnet_core.paths import STAGE_TO


class Bins(StrEnum):
    """What becomes of the fine encoder, as commands name it."""

    FINETUNED = "finetuned"
    FROZEN = "frozen"

    @property
    def mode(self) -> Literal["full", "frozen"]:
        """As a setting: `encoder.mode`."""
        return "full" if self is Bins.FINETUNED else "frozen"


def run_options(
    *,
    fold: int | None = None,
    name: str | None = None,
    target: int | None = None,
    backbone: str | None = None,
    store: Path | None = None,
    runs: Path | None = None,
    bins: Bins | None = None,
    device: str | None = None,
    seeds: int | None = None,
) -> dict[str, tuple[str, Any]]:
    """Return what `train fit` and `train sweep` were given: dotted name of a setting -> (option, value or None)."""
    return {
        "fold": ("--fold", fold),
        "name": ("--name", name),
        "data.target": ("--target", target),
        "data.backbone": ("--backbone", backbone),
        "data.store": ("--store", store),
        "runs": ("--runs", runs),
        "split.file": ("--runs", runs / "folds.json" if runs else None),
        "encoder.mode": ("--bins", bins.mode if bins else None),
        "device": ("--device", device),
        "seeds": ("--seeds", seeds),
    }


TargetOption = Annotated[int | None, typer.Option(help="Predict 8 or 16 µm bins, or 55 µm spots.", show_default="8")]
BackboneOption = Annotated[str | None, typer.Option(help="Features of this backbone.", show_default="resnet50")]
StoreOption = Annotated[Path | None, typer.Option(help="Store written by 'extract run'.", show_default="store")]
RunsOption = Annotated[Path | None, typer.Option(help="Folder for results and folds.json.", show_default="runs")]
FoldOption = Annotated[int | None, typer.Option(help="Fold to leave out, from 0.", show_default="0")]
RecipeOption = Annotated[Path | None, typer.Option(help="TOML file of settings, see recipes/.")]
SetOption = Annotated[list[str] | None, typer.Option("--set", help="One setting, such as optim.lr=1e-3.")]
SeedsOption = Annotated[
    int | None,
    typer.Option(help="Train so many times, from `seed` on, and test the mean prediction.", show_default="1"),
]
DeviceOption = Annotated[str | None, typer.Option(help="auto, cpu, cuda or cuda:N.", show_default="auto")]
FoldsOption = Annotated[str | None, typer.Option(help="Folds to compute, such as 0,2; all of them by default.")]
FinetuneOption = Annotated[bool, typer.Option("--finetune", help="Train encoders from pixels; slow without a GPU.")]
GenesOption = Annotated[str | None, typer.Option(help="Single genes to compare and draw, such as SGPP1,DPEP1.")]
PublishedOption = Annotated[bool, typer.Option("--published", help="Show the paper's figures beside ours.")]
StageOption = Annotated[
    Path | None, typer.Option(help="Read copies of the store's files in this folder, made where there are none.")
]
NameOption = Annotated[str | None, typer.Option(help="Name of the study's folder.")]
ProtocolOption = Annotated[str, typer.Option(help="paper, triplex or hest: genes, folds, and how slides add up.")]


def with_staging(function: Callable[..., None]) -> Callable[..., None]:
    """Give a command that reads a store the option --stage-to, which its processes find in their environment."""

    @functools.wraps(function)
    def command(*arguments: Any, stage_to: Path | None, **options: Any) -> None:
        if stage_to is not None:
            os.environ[STAGE_TO] = str(stage_to.absolute())
        function(*arguments, **options)

    return with_options(command, function, {"stage_to": (StageOption, None)})


def split_names(option: str, text: str | None) -> tuple[str, ...] | None:
    """Names of a list with commas, each once; None where nothing is said, and an error where nothing is named."""
    if text is None:
        return None
    names = tuple(dict.fromkeys(part.strip() for part in text.split(",") if part.strip()))
    if not names:
        raise MagnetError(
            option, expected="names with commas between", found=f"'{text}'", remedy="leave it out, or name some"
        )
    return names


def split_numbers(option: str, text: str | None) -> tuple[int, ...] | None:
    """Whole numbers of a list with commas, each once; None where nothing is said."""
    names = split_names(option, text)
    try:
        return None if names is None else tuple(dict.fromkeys(int(name) for name in names))
    except ValueError as error:
        raise MagnetError(option, expected="whole numbers such as 0,2", found=str(text), remedy="correct it") from error


def part_name(**options: str | None) -> str:
    """What is said of a part, for the name of its folder, so that the whole table stays: '-folds-0-2'."""
    return "".join(f"-{name}-{re.sub('[^0-9A-Za-z_.]+', '-', text)}" for name, text in options.items() if text)

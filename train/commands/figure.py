"""The command `train figure`."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from magnet_core.console import human_bytes, importing
from magnet_core.errors import MagnetError
from magnet_core.registry import look_up
from train.commands.options import split_names
from train.places import SWEEP, TABLE, check_result

FORMATS = ("png", "pdf", "svg")


class Kind(StrEnum):
    """What a figure shows."""

    MAPS = "maps"
    TABLE = "table"
    CURVES = "curves"


def figure_command(
    kind: Annotated[Kind, typer.Argument(help="Genes on a slide, the table with its intervals, or trainings.")],
    folders: Annotated[list[Path], typer.Argument(metavar="RUN...", help="Folders of train fit, cv or study.")],
    genes: Annotated[
        str | None, typer.Option(help="Genes to draw, such as SGPP1,DPEP1; left out: the best predicted.")
    ] = None,
    slides: Annotated[
        str | None, typer.Option(help="Slides to draw, a figure each, or 'all'; left out: the first tested.")
    ] = None,
    systems: Annotated[
        str | None, typer.Option(help="Systems, such as magnet,egn, or 'all'; left out: MagNet and the best others.")
    ] = None,
    target: Annotated[int | None, typer.Option(help="Target in µm, of a study of several; the first.")] = None,
    whole: Annotated[
        bool, typer.Option("--whole", help="Draw what 'train predict' wrote, not the tested bins.")
    ] = False,
    format_: Annotated[str | None, typer.Option("--format", help="png, pdf or svg.", show_default="png")] = None,
    out: Annotated[Path | None, typer.Option(help="File of the only figure; left out: RUN/figures/.")] = None,
    store: Annotated[Path | None, typer.Option(help="Store, where the run's own has moved.")] = None,
) -> None:
    """Draw a figure for print: maps over the tissue, the table, or curves, with words that stay text."""
    lists = {"--genes": genes, "--slides": slides, "--systems": systems}
    of_maps = {**lists, "--target": target, "--whole": whole or None, "--store": store}
    if kind is not Kind.MAPS and (given := [option for option, value in of_maps.items() if value is not None]):
        raise MagnetError(given[0], expected="it with 'train figure maps'", found=str(kind), remedy="leave it out")
    form = chosen_format(format_, out)
    names = {option: split_names(option, text) or () for option, text in lists.items()}
    for folder in folders:
        check_table(folder)
    with importing():
        from train.report.drawing import FigureRequest, draw_figures
        from train.report.map_choice import MapRequest

    maps = MapRequest(names["--genes"], names["--slides"], names["--systems"], target, whole, store)
    for path in draw_figures(FigureRequest(kind.value, folders, form, out, maps)):
        typer.echo(f"figure: {path} ({human_bytes(path.stat().st_size)})")


def chosen_format(named: str | None, out: Path | None) -> str:
    """The format that is named, or that of the file; both must agree."""
    ending = out.suffix.removeprefix(".").lower() if out else ""
    form = named or ending or FORMATS[0]
    look_up(dict.fromkeys(FORMATS), form, where="--format" if named or not out else "--out")
    if ending and ending != form:
        raise MagnetError("--out", expected=f"a name ending in .{form}", found=f"'{out}'", remedy="correct one of them")
    return form


def check_table(folder: Path) -> None:
    """Refuse what is no finished table, a sweep too."""
    check_result(folder)
    if not (folder / TABLE).is_file():
        raise MagnetError(
            folder, expected=f"a table's folder, with {TABLE}", found=f"a sweep, with {SWEEP}",
            remedy="name one of train fit, cv or study, or a sweep's refit/",
        )  # fmt: skip

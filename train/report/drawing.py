"""Draws the figures that `train figure` is asked for, and writes each.

In: folders of tables. Out: files in RUN/figures/, or the one that is named; a figure at a time is in memory.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from magnet_core.errors import MagnetError
from train.places import TABLE, find_cell, read_record
from train.report.map_choice import Choice, MapRequest, choose_maps

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FIGURES = "figures"
Kind = Literal["maps", "table", "curves"]


@dataclass(frozen=True)
class FigureRequest:
    """What to draw of which folders; `out` is the file of the only figure."""

    kind: Kind
    folders: Sequence[Path]
    form: str = "png"
    out: Path | None = None
    maps: MapRequest = field(default_factory=MapRequest)


def draw_figures(request: FigureRequest) -> Iterator[Path]:
    """Draw and write; all that is named is looked up before anything is drawn."""
    if request.kind == "maps":
        chosen = [(folder, choice) for folder in request.folders for choice in choose_maps(folder, request.maps)]
        names = [f"maps-{choice.source.slide_id}-{_file_name(choice.source.group)}" for _, choice in chosen]
        paths = paths_of(request, [folder for folder, _ in chosen], names)
        drawn = (_maps(choice) for _, choice in chosen)
    else:
        paths = paths_of(request, request.folders, [request.kind] * len(request.folders))
        drawn = (_table(folder) if request.kind == "table" else _curves(folder) for folder in request.folders)
    from train.report.static import save

    for path, figure in zip(paths, drawn, strict=True):
        save(figure, path, request.form)
        yield path


def paths_of(request: FigureRequest, folders: Sequence[Path], names: Sequence[str]) -> list[Path]:
    """Where figures go; a file that is named takes one alone."""
    if request.out is None:
        return [folder / FIGURES / f"{name}.{request.form}" for folder, name in zip(folders, names, strict=True)]
    if len(names) > 1:
        raise MagnetError(
            "--out",
            expected="one figure",
            found=f"{len(names)}: {', '.join(names)}",
            remedy=f"leave --out out, to have them in RUN/{FIGURES}/",
        )
    return [request.out]


def _maps(choice: Choice) -> "Figure":
    from train.report.map_figure import draw_maps

    return draw_maps(choice.source.read(choice.genes, choice.systems), systems=choice.systems, ceilings=choice.ceilings)


def _table(folder: Path) -> "Figure":
    from train.report.study import read_lines
    from train.report.table_figure import draw_table

    record = read_record(folder)
    ours = {row["group"]: row["title"] for row in record["rows"] if row["ours"]}
    return draw_table(read_lines(folder / "table.csv"), ours, record["title"])


def _curves(folder: Path) -> "Figure":
    from train.report.curve_figure import draw_curves
    from train.report.study import trainings_of

    record = read_record(folder)
    if not (groups := trainings_of(record, folder)):
        raise MagnetError(
            folder / TABLE,
            expected="a system that was trained in epochs, and its cell",
            found=f"none in {len([find_cell(cell, folder) for row in record['rows'] for cell in row['cells']])} cells",
            remedy="copy the cells (RUNS/cells) beside the folder, or name a table of such systems",
        )
    return draw_curves(groups, record["title"])


def _file_name(group: str) -> str:
    return group.replace(" µm", "um").replace(" ", "-")

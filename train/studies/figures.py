"""Pictures of a study: its table as points with intervals, and maps of a gene side by side.

Drawn by matplotlib without a display.
"""

import math
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import PatchCollection
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from magnet_core.files import replacing
from train.studies.summary import Line
from train.systems.table import CEILING_TITLE

# N bins of a slide

OURS, OTHERS = "#b5281e", "#34495e"
COLUMNS_OF_MAPS = 4
CHARACTERS_AN_INCH = 15  # of the title


@dataclass(frozen=True)
class Map:
    """One gene on one slide: its title, centres (N, 2) in µm as (x, y), values (N,), and the bins' pitch in µm."""

    title: str
    centres_um: np.ndarray
    values: np.ndarray
    pitch_um: float


def draw_table(lines: Sequence[Line], title: str, note: str, path: Path) -> None:
    """Draw each row's PCC per gene with its 95 % interval, a panel for each group; a line is the noise ceiling.

    `note` stands below the title and says which data the figure is of.
    """
    groups = list(dict.fromkeys(line.group for line in lines))
    rows = max(sum(line.group == group for line in lines) for group in groups)
    figure = Figure(figsize=(1.5 + 3.6 * len(groups), 1.4 + 0.32 * rows), layout="constrained")
    for index, group in enumerate(groups):
        axes = figure.add_subplot(1, len(groups), index + 1)
        drawn = [line for line in lines if line.group == group and line.title != CEILING_TITLE]
        for place, line in enumerate(drawn):
            value = line.metrics.get("pcc_gene")
            if value is None or not math.isfinite(value.mean):
                continue
            colour = OURS if line.is_ours else OTHERS
            if math.isfinite(value.low):
                axes.plot([value.low, value.high], [place, place], color=colour, linewidth=1.5)
            axes.plot([value.mean], [place], "o", color=colour, markersize=5)
        ceiling = next((line for line in lines if line.group == group and line.title == CEILING_TITLE), None)
        if ceiling is not None and "pcc_gene" in ceiling.metrics:
            axes.axvline(ceiling.metrics["pcc_gene"].mean, color="#888888", linestyle="--", linewidth=1)
        axes.set_yticks(range(len(drawn)), [line.title for line in drawn] if index == 0 else [""] * len(drawn))
        axes.set_ylim(len(drawn) - 0.5, -0.5)
        axes.set_title(group, fontsize=10)
        axes.set_xlabel("PCC per gene, 95 %\n(dashed: noise ceiling, an upper bound)", fontsize=8)
        axes.locator_params(axis="x", nbins=6)  # three decimals beside each other leave no gap with more
        axes.grid(axis="x", color="#dddddd", linewidth=0.6)
    width = int(CHARACTERS_AN_INCH * figure.get_figwidth())
    figure.suptitle("\n".join(textwrap.fill(text, width) for text in (title, note)), fontsize=9)
    _save(figure, path)


def draw_maps(maps: Sequence[Map], title: str, path: Path) -> None:
    """Draw maps side by side on one colour scale, that of the first, which is the measured one."""
    columns = min(COLUMNS_OF_MAPS, len(maps))
    rows = -(-len(maps) // columns)
    figure = Figure(figsize=(3.1 * columns, 3.2 * rows + 0.4), layout="constrained")
    low, high = np.nanpercentile(maps[0].values, [1, 99])
    for index, each in enumerate(maps):
        axes = figure.add_subplot(rows, columns, index + 1)
        half = each.pitch_um / 2
        squares = [Rectangle((x - half, y - half), each.pitch_um, each.pitch_um) for x, y in each.centres_um]
        drawn = PatchCollection(squares, array=each.values, cmap="viridis", linewidths=0)
        drawn.set_clim(low, max(high, low + 1e-6))
        axes.add_collection(drawn)
        axes.set_xlim(each.centres_um[:, 0].min() - half, each.centres_um[:, 0].max() + half)
        axes.set_ylim(each.centres_um[:, 1].max() + half, each.centres_um[:, 1].min() - half)  # rows run down
        axes.set_aspect("equal")
        axes.set_xticks([])
        axes.set_yticks([])
        axes.set_title(each.title, fontsize=9)
    figure.colorbar(drawn, ax=figure.axes, shrink=0.7, label="normalised expression")
    figure.suptitle(title, fontsize=11)
    _save(figure, path)


def _save(figure: Figure, path: Path) -> None:
    FigureCanvasAgg(figure)
    with replacing(path) as partial:
        figure.savefig(partial, dpi=130, format="png")

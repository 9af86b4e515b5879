"""A table typeset as a figure: systems and their metrics in words, and PCC per gene drawn beside them.

In: the lines of a table. Out: a figure, a block of rows a target, the best of each in bold, ours set off; beside the
numbers a point with its 95 % interval, and the noise ceiling, an upper bound, as a dashed line.
"""

import math
from collections.abc import Mapping, Sequence
from itertools import pairwise

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from magnet_core.resampling import METRICS, metric_titles
from train.report.static import FAINT, MM, OTHERS, OURS, style
from train.studies.numbers import number, span, spread
from train.studies.render import best_of
from train.studies.summary import Line
from train.systems.table import CEILING_TITLE

ROW_MM, POINTS_MM, GAP_MM = 4.6, 46.0, 3.0
CHARACTER_MM = 1.52  # of the type, on the average
HEADINGS = ("system", *metric_titles(), "95 %", "÷ ceiling")


def draw_table(lines: Sequence[Line], ours: Mapping[str, str], title: str) -> Figure:
    """Draw all groups one below the other; `ours` are titles by group."""
    groups = list(dict.fromkeys(line.group for line in lines))
    rows = [_cells(line) for line in lines]
    widths = [max(len(text) for text in column) * CHARACTER_MM + GAP_MM for column in zip(HEADINGS, *rows, strict=True)]
    edges = [0.0]
    for width in widths:
        edges.append(edges[-1] + width)
    height = (len(lines) + 2.6 * len(groups) + 3.2) * ROW_MM
    width = edges[-1] + POINTS_MM
    with style():
        figure = Figure(figsize=(width * MM, height * MM))
        words = figure.add_axes((0, 0, 1, 1))
        words.set_xlim(0, width)
        words.set_ylim(height, 0)
        words.axis("off")
        words.text(0, ROW_MM * 0.6, title, fontsize=9, va="center")
        top = 2.0 * ROW_MM
        for group in groups:
            of_group = [line for line in lines if line.group == group]
            _words(words, of_group, ours.get(group, ""), edges, width, top)
            place = (edges[-1] / width, 1 - (top + (len(of_group) + 1.2) * ROW_MM) / height,
                     POINTS_MM / width * 0.97, len(of_group) * ROW_MM / height)  # fmt: skip
            _points(figure.add_axes(place), of_group, ours.get(group, ""))
            top += (len(of_group) + 2.6) * ROW_MM
    return figure


def _cells(line: Line) -> list[str]:
    metrics = [spread(line.metrics.get(name)) for name in METRICS]
    return [line.title, *metrics, span(line.metrics.get("pcc_gene")), number(line.of_ceiling, 2)]


def _words(axes: Axes, lines: Sequence[Line], ours: str, edges: Sequence[float], width: float, top: float) -> None:
    """Headings and numbers of one group between three rules."""
    best = best_of(lines)
    bottom = top + (len(lines) + 1.2) * ROW_MM
    for y, weight in ((top, 1.0), (top + 1.1 * ROW_MM, 0.5), (bottom, 1.0)):
        axes.plot([0, width], [y, y], color="black", linewidth=weight, clip_on=False)
    headings = (lines[0].group, *HEADINGS[1:])
    for (left, right), text in zip(pairwise(edges), headings, strict=True):
        x, side = (left, "left") if left == 0 else (right - GAP_MM, "right")
        axes.text(
            x, top + 0.6 * ROW_MM, text, ha=side, va="center", fontsize=7, fontweight="bold" if left == 0 else "normal"
        )
    for row, line in enumerate(lines):
        y = top + (row + 1.7) * ROW_MM
        leading = {name for name in METRICS if "mse" in line.metrics and line.metrics[name].mean == best.get(name)}
        bold = [line.title == ours, *(name in leading for name in METRICS), False, False]
        for (left, right), text, is_bold in zip(pairwise(edges), _cells(line), bold, strict=True):
            x, side = (left, "left") if left == 0 else (right - GAP_MM, "right")
            colour = OURS if line.title == ours and left == 0 else "black"
            axes.text(
                x, y, text, ha=side, va="center", fontsize=7, color=colour, fontweight="bold" if is_bold else "normal"
            )


def _points(axes: Axes, lines: Sequence[Line], ours: str) -> None:
    """PCC per gene of each row with its interval."""
    for row, line in enumerate(lines):
        value = line.metrics.get("pcc_gene")
        if value is None or not math.isfinite(value.mean):
            continue
        if line.title == CEILING_TITLE:
            axes.axvline(value.mean, color=FAINT, linestyle="--", linewidth=0.8)
            continue
        colour = OURS if line.title == ours else OTHERS
        if math.isfinite(value.low):
            axes.plot([value.low, value.high], [row, row], color=colour, linewidth=1.2)
        axes.plot([value.mean], [row], "o", color=colour, markersize=3.5)
    axes.set_ylim(len(lines) - 0.5, -0.5)
    axes.set_yticks([])
    axes.spines[["left", "top", "right"]].set_visible(False)
    axes.tick_params(axis="x", length=2, labelsize=6)
    axes.set_xlabel("PCC per gene (dashed: upper bound)", fontsize=6, labelpad=1)

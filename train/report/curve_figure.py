"""Curves of trainings as a static figure: loss and validation by epoch, a row a target.

In: trainings by group, system and fold. Out: a figure. A colour is a system, a line a fold, a dot the epoch kept.
Losses of several systems, each of which has its own kind, are drawn on a logarithm.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from train.report.folder import TrainingHistory
from train.report.static import COLOURS, MM, style

PANEL_MM = (78.0, 52.0)
LINES = ("-", "--", ":", "-.")  # of systems beyond the colours
TITLES = ("training: mean loss of an epoch", "validation: PCC per gene")


def draw_curves(groups: Mapping[str, Sequence[tuple[str, str, TrainingHistory]]], title: str) -> Figure:
    """Draw (system, fold, training) of each group; without anything held out, its losses alone."""
    systems = list(dict.fromkeys(system for trained in groups.values() for system, _, _ in trained))
    judged = any(each.scores for trained in groups.values() for _, _, each in trained)
    width, height = (1 + judged) * PANEL_MM[0], len(groups) * PANEL_MM[1] + 14 + 4 * math.ceil(len(systems) / 4)
    with style():
        figure = Figure(figsize=(width * MM, height * MM), layout="constrained")
        panels = figure.subplots(len(groups), 1 + judged, squeeze=False)
        for row, (group, trained) in zip(panels, groups.items(), strict=True):
            for axes, named, of in zip(row, TITLES, ("losses", "scores"), strict=False):
                for system, _, training in trained:
                    _draw(axes, getattr(training, of), training.kept_epoch, systems.index(system))
                if of == "losses" and are_of_several_sizes(trained):
                    axes.set_yscale("log")
                axes.set_title(f"{group}, {named}")
                axes.set_xlabel("epoch")
                axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=8))
                axes.grid(color="#dddddd", linewidth=0.5)
                axes.spines[["top", "right"]].set_visible(False)
        lines = [Line2D([], [], label=system, linewidth=1.2, **_look(place)) for place, system in enumerate(systems)]
        figure.legend(handles=lines, loc="outside lower center", ncols=min(4, len(lines)), frameon=False)
        figure.suptitle(f"{title}\na line is a fold, a dot the epoch whose weights were kept", fontsize=8)
    return figure


def are_of_several_sizes(trained: Sequence[tuple[str, str, TrainingHistory]]) -> bool:
    """Whether losses are of several systems, each of which has its own, and a logarithm shows all of them."""
    losses = [loss for _, _, each in trained for loss in each.losses if math.isfinite(loss)]
    return len({system for system, _, _ in trained}) > 1 and min(losses, default=0) > 0


def _draw(axes: Axes, values: Sequence[float], kept_epoch: int, place: int) -> None:
    if not values:
        return
    axes.plot(range(1, len(values) + 1), values, linewidth=1, **_look(place))
    if 0 < kept_epoch <= len(values):
        axes.plot([kept_epoch], [values[kept_epoch - 1]], "o", color=_look(place)["color"], markersize=3.5)


def _look(place: int) -> dict[str, Any]:
    return {"color": COLOURS[place % len(COLOURS)], "linestyle": LINES[place // len(COLOURS) % len(LINES)]}

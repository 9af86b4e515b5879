"""The viewer's parts as Bokeh has them: maps, what one picks and changes them by, and a scatter.

In: what a `Catalogue` tells of its slides. Out: a `Board` of models by the place of the page they stand in.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from bokeh.models import (
    AutocompleteInput,
    Button,
    CheckboxGroup,
    ColumnDataSource,
    CustomJS,
    Div,
    InlineStyleSheet,
    Select,
    Slider,
    TextInput,
)

from train.report.viewer.maps import STYLE, Maps, scatter_of

SCALES = [("one", "one for both maps"), ("own", "each map its own")]
OUTLINE = "export default ({lines}, {active}) => lines.forEach((line) => { line.visible = active.length > 0 })"
OPACITY = 0.85  # of the bins, at first
# A button's label, and by how much it zooms, and moves right and down; None shows the whole again.
MOVES = {
    "+ zoom in": (1.5, 0, 0),
    "− zoom out": (1 / 1.5, 0, 0),
    "← left": (1, -0.25, 0),
    "→ right": (1, 0.25, 0),
    "↑ up": (1, 0, -0.25),
    "↓ down": (1, 0, 0.25),
    "whole": None,
}


@dataclass(frozen=True)
class Board:
    """Models by the names that the template has for their places, and the callback that fills them."""

    places: Mapping[str, Any]
    show: CustomJS


def board(facts: Sequence[Mapping[str, Any]]) -> Board:
    """Build all models and join them by callbacks."""
    style = InlineStyleSheet(css=STYLE)
    maps = Maps(aspect_of(facts[0]), style)
    panels, pickers = maps.panels(), pickers_of(facts, style)
    points = ColumnDataSource({"truth": [0.0, 1.0], "prediction": [0.0, 1.0], "barcode": ["", ""]})
    show = CustomJS(
        args={
            **pickers,
            "points": points,
            "panels": {kind: panel.callback_args for kind, panel in panels.items()},
            **{name: getattr(maps, name) for name in ("x", "y", "aspect", "bins", "picture", "outline")},
        },
        code=script("show.js"),
    )
    for name in ("slide", "system", "gene", "scale"):
        pickers[name].js_on_change("value", show)
    pickers["filter"].js_on_change("value_input", show)
    places = {**pickers, "scatter": scatter_of(points)}
    opacity = Slider(title="Opacity of the bins", start=0, end=1, step=0.05, value=OPACITY, **look(style))
    outlined = CheckboxGroup(labels=["outline of the bins"], active=[0], stylesheets=[style])
    places |= {"opacity": opacity, "outlined": outlined}
    for kind, panel in panels.items():
        panel.bins.global_alpha = OPACITY
        opacity.js_link("value", panel.bins, "global_alpha")
        places |= {f"{kind}_title": panel.title, f"{kind}_map": panel.plot, f"{kind}_legend": panel.legend}
    lines = [line for panel in panels.values() for line in panel.lines]
    outlined.js_on_change("active", CustomJS(args={"lines": lines}, code=OUTLINE))
    for index, (label, by) in enumerate(MOVES.items()):
        button = Button(label=label, stylesheets=[style])
        button.js_on_click(CustomJS(args={"x": maps.x, "y": maps.y, "by": by}, code=script("move.js")))
        places[f"move_{index}"] = button
    return Board(places, show)


def pickers_of(facts: Sequence[Mapping[str, Any]], style: InlineStyleSheet) -> dict[str, Any]:
    """Build what one picks slide, system and gene by, and the line that tells what is shown."""
    first, stretched = facts[0], look(style)
    names = first["genes"]["name"]
    slides = [(str(index), each["title"]) for index, each in enumerate(facts)]
    return {
        "slide": Select(title="Slide", options=slides, value="0", **stretched),
        "system": Select(title="System", options=first["systems"], value=first["ours"], **stretched),
        "gene": AutocompleteInput(
            title="Gene (type to search)",
            completions=names,
            value=names[first["best"]],
            restrict=True,
            min_characters=1,
            max_completions=12,
            case_sensitive=False,
            search_strategy="includes",
            **stretched,
        ),
        "scale": Select(title="Colour scale", options=SCALES, value="one", **stretched),
        "filter": TextInput(title="Genes whose name has", **stretched),
        "status": Div(disable_math=True, **stretched),
    }


def aspect_of(facts: Mapping[str, Any]) -> float:
    """Width by height of the maps, that of the first slide unless it is very long."""
    return float(np.clip(np.ptp(facts["x"]) / np.ptp(facts["y"]), 0.75, 1.5))


def look(style: InlineStyleSheet) -> dict[str, Any]:
    """Return what widgets have in common: they are as wide as their place, and light or dark as the page is."""
    return {"stylesheets": [style], "sizing_mode": "stretch_width"}


def script(name: str) -> str:
    """Read a callback of ours."""
    return (Path(__file__).parent / name).read_text(encoding="utf-8")

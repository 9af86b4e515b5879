"""The maps as Bokeh draws them: what is measured, predicted, their difference and its sd, side by side over the tissue.

In: the aspect of the slides. Out: `Maps`, with figures that share their ranges, so that all zoom and move together.
What they show is filled in by `show.js`.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from bokeh.models import (
    ColumnDataSource,
    CrosshairTool,
    CustomJS,
    Div,
    HoverTool,
    InlineStyleSheet,
    LinearColorMapper,
    Metric,
    PanTool,
    Range1d,
    ScaleBar,
    Span,
    WheelZoomTool,
)
from bokeh.plotting import figure

# What is drawn, by its column, and what a tooltip calls it.
KINDS = {"truth": "measured", "prediction": "predicted", "difference": "difference", "deviation": "sd"}
GREY = "#808080"  # is seen on light and on dark
INK, PAPER = "#222222", "#ffffff"
STYLE = (Path(__file__).parent / "widgets.css").read_text(encoding="utf-8")
IS_A_BIN = "export default (_, __, {value}) => value !== ''"


def source(*names: str) -> ColumnDataSource:
    """Return an empty source of these columns."""
    return ColumnDataSource({name: [] for name in names})


def one_cell() -> ColumnDataSource:
    """Return a raster of a single cell without a bin."""
    values = {kind: [np.full((1, 1), np.nan, np.float32)] for kind in KINDS}
    return ColumnDataSource({"x": [0], "y": [0], "w": [1], "h": [1], "barcode": [[""]], **values})


@dataclass(frozen=True)
class Panel:
    """One map: its figure, title and legend, how it is coloured, and what a slider and a box change."""

    plot: Any
    mapper: LinearColorMapper
    title: Div
    legend: Div
    bins: Any
    lines: list[Any]

    @property
    def callback_args(self) -> dict[str, Any]:
        """What `show.js` sets."""
        return {
            "mapper": self.mapper,
            "title": self.title,
            "legend": self.legend,
            "colours": gradient(self.mapper.palette),
        }


@dataclass(frozen=True)
class Maps:
    """All maps, and the sources they draw from; `aspect` is the width of each by its height."""

    aspect: float
    style: InlineStyleSheet
    x: Range1d = field(default_factory=lambda: Range1d(start=0, end=1))
    y: Range1d = field(default_factory=lambda: Range1d(start=1, end=0))  # as in an image, y runs down
    bins: ColumnDataSource = field(default_factory=one_cell)
    picture: ColumnDataSource = field(default_factory=lambda: source("url", "x", "y", "w", "h", "angle"))
    outline: ColumnDataSource = field(default_factory=lambda: source("x0", "y0", "x1", "y1"))

    def panels(self) -> dict[str, Panel]:
        """Draw the maps by their kinds; a cross that follows the pointer shows the same place in all."""
        cross = [Span(dimension=each, line_color=GREY, line_dash="dotted") for each in ("width", "height")]
        return {kind: self._panel(kind, cross) for kind in KINDS}

    def _panel(self, kind: str, cross: list[Span]) -> Panel:
        plot = figure(
            name=f"map_{kind}",
            x_range=self.x,
            y_range=self.y,
            aspect_ratio=self.aspect,
            sizing_mode="stretch_width",
            min_border=0,
            toolbar_location=None,
            tools="",
            outline_line_color=GREY,
            background_fill_alpha=0,
            border_fill_alpha=0,
        )
        plot.axis.visible, plot.grid.visible = False, False
        places = {"x": "x", "y": "y", "source": self.picture}
        plot.image_url(url="url", w="w", h="h", angle="angle", anchor="top_left", **places)
        colours = diverging() if kind == "difference" else "Viridis256"
        mapper = LinearColorMapper(palette=colours, nan_color="#00000000")
        bins = plot.image(image=kind, x="x", y="y", dw="w", dh="h", color_mapper=mapper, source=self.bins)
        ends = {"x0": "x0", "y0": "y0", "x1": "x1", "y1": "y1", "source": self.outline, "line_cap": "square"}
        lines = [  # a dark line on a light one is seen on tissue and on bins
            plot.segment(**ends, line_color=PAPER, line_width=3, line_alpha=0.6),
            plot.segment(**ends, line_color=INK, line_width=1),
        ]
        told = [(name, f"@{each}{{0.000}}") for each, name in KINDS.items() if each != "deviation" or kind == each]
        shown = {"barcode": CustomJS(code=IS_A_BIN)}
        hover = HoverTool(renderers=[bins], tooltips=[("barcode", "@barcode"), *told], filters=shown)
        wheel = WheelZoomTool(maintain_focus=False)
        plot.add_tools(PanTool(), wheel, hover, CrosshairTool(overlay=cross))
        plot.toolbar.active_scroll = wheel
        plot.add_layout(scale_bar(self.x))
        title, legend = (
            Div(sizing_mode="stretch_width", disable_math=True, stylesheets=[self.style]) for _ in range(2)
        )
        return Panel(plot, mapper, title, legend, bins.glyph, lines)


def scale_bar(across: Range1d) -> ScaleBar:
    """Return a bar of a round length, about a quarter of the map."""
    return ScaleBar(
        range=across,
        unit="µm",
        dimensional=Metric(base_unit="m"),
        orientation="horizontal",
        location="bottom_left",
        length_sizing="adaptive",
        bar_length=0.25,
        bar_line_color=INK,
        label_text_color=INK,
        background_fill_color=PAPER,
        background_fill_alpha=0.8,
        border_line_color=None,
        padding=6,
        margin=6,
    )


def scatter_of(points: ColumnDataSource) -> Any:
    """Draw predicted over measured expression, a point a bin."""
    plot = figure(
        name="scatter",
        sizing_mode="stretch_width",
        aspect_ratio=1.25,
        tools="",
        toolbar_location=None,
        x_axis_label="measured",
        y_axis_label="predicted",
        background_fill_alpha=0,
        border_fill_alpha=0,
        outline_line_color=None,
    )
    drawn = plot.scatter("truth", "prediction", source=points, size=5, color="#1f8fb8", alpha=0.4, line_color=None)
    told = [("barcode", "@barcode"), ("measured", "@truth{0.000}"), ("predicted", "@prediction{0.000}")]
    plot.add_tools(HoverTool(renderers=[drawn], tooltips=told, limit=1))
    for axis in plot.axis:
        axis.axis_label_text_color = axis.major_label_text_color = axis.axis_line_color = GREY
        axis.major_tick_line_color, axis.minor_tick_line_color, axis.axis_label_text_font_style = GREY, None, "normal"
    plot.grid.grid_line_color, plot.grid.grid_line_alpha = GREY, 0.25
    return plot


def diverging() -> list[str]:
    """Return colours from purple over white to orange in 256 steps, which every eye tells apart."""
    from matplotlib import colormaps
    from matplotlib.colors import to_hex

    return [to_hex(colour) for colour in colormaps["PuOr_r"](np.linspace(0, 1, 256))]


def gradient(colours: list[str]) -> str:
    """Return colours as CSS draws them from left to right."""
    return f"linear-gradient(to right, {', '.join(colours[::16])}, {colours[-1]})"

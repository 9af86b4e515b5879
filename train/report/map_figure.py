"""Maps of genes on a slide, measured and predicted, over the tissue: the paper's Figure 3 for any gene and systems.

In: a `SlideMap`. Out: a figure. A row is a gene, with one colour scale and its legend; columns are the tissue, what was
measured, and the systems. Bins are a raster: one picture a map, however many bins there are, whose pixels PDF and SVG
hold as they are.
"""

import math
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.collections import EllipseCollection
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.transforms import Affine2D
from PIL import Image

from cache.picture import Picture
from magnet_core.metrics import evaluate
from train.report.figures import round_step
from train.report.slide_maps import SlideMap
from train.report.static import MM, style

# N rows of a slide, P genes

PANEL_MM = 34.0  # width of a map
NAMES_MM, RIGHT_MM, GAP_MM, LEGEND_MM = 5.0, 15.0, 1.5, 2.5
HEADING_MM, LINE_MM, BELOW_MM = 7.0, 3.6, 8.0  # heights: of the heading, of a line of a title, below the last row
TISSUE_PX, BENEATH_PX = 800, 400  # of the picture across a panel, alone and beneath a map
MARGIN = 0.03  # of the larger side, around the bins
ENDS = (1, 99)  # percentiles of what was measured at which the colour scale ends
CHARACTERS = 17  # of a line of a title
PALE = 0.55  # how far the tissue beneath a map is bleached
MEASURED, TISSUE = "measured", "H&E"
MAP = colormaps["viridis"].with_extremes(bad=(0, 0, 0, 0))  # nothing where no bin is

Box = tuple[float, float, float, float]  # left, top, right, bottom in µm


def draw_maps(
    slide_map: SlideMap, *, systems: Sequence[str] | None = None, ceilings: Mapping[str, float] | None = None
) -> Figure:
    """Draw all genes of a map, and its systems in the order of their titles, if that is given.

    `ceilings` are noise ceilings by gene, upper bounds, which stand below what was measured.
    """
    columns, box = columns_of(slide_map, systems or list(slide_map.predictions)), box_of(slide_map)
    genes, known = slide_map.genes.names.tolist(), ceilings or {}
    has_picture = slide_map.picture is not None
    names = [textwrap.fill(title, CHARACTERS) for title in columns]
    lines = 1 + max(name.count("\n") + 1 for name in names)
    sheet = Sheet(len(columns), len(genes), (box[3] - box[1]) / (box[2] - box[0]), lines, has_picture)
    with style():
        figure = sheet.figure()
        figure.text(0.5, 1 - 1.5 / sheet.height_mm, heading(slide_map), ha="center", va="top", fontsize=9)
        if slide_map.picture is not None:
            tissue = frame(sheet.tissue(figure), box)
            lay_tissue(tissue, slide_map.picture, box)
            tissue.set_title(TISSUE)
            scale_bar(tissue, box)
        for row, gene in enumerate(genes):
            scale = scale_of(slide_map, row)
            for place, (title, values) in enumerate(columns.items()):
                axes = frame(sheet.panel(figure, row, place), box)
                draw_map(axes, slide_map, values[:, row], scale, box)
                said = beneath(slide_map, title, row, known.get(gene))
                axes.set_title("\n".join(text for text in (names[place] if row == 0 else "", said) if text))
                if place == 0:
                    axes.set_ylabel(gene, fontstyle="italic", fontsize=9)
                    if not has_picture and row == len(genes) - 1:
                        scale_bar(axes, box)
            legend = figure.colorbar(ScalarMappable(scale, MAP), cax=sheet.legend(figure, row))
            legend.set_label("normalised expression", fontsize=7)
            legend.outline.set_visible(False)
    return figure


@dataclass(frozen=True)
class Sheet:
    """Where panels stand: columns and rows of maps, and the tissue, if it is shown, at the left of the first row.

    A panel's height is `aspect` times its width, and its title has up to so many `lines`.
    """

    columns: int
    rows: int
    aspect: float
    lines: int
    has_tissue: bool

    @property
    def width_mm(self) -> float:
        """Of the whole."""
        return self.left_mm + self.columns * (PANEL_MM + GAP_MM) + RIGHT_MM

    @property
    def left_mm(self) -> float:
        """What is left of the maps: the tissue, and names of genes."""
        return NAMES_MM + (PANEL_MM + GAP_MM if self.has_tissue else 0)

    @property
    def height_mm(self) -> float:
        """Of the whole."""
        titles = HEADING_MM + self.lines * LINE_MM + (self.rows - 1) * (LINE_MM + GAP_MM)
        return titles + self.rows * PANEL_MM * self.aspect + BELOW_MM

    def figure(self) -> Figure:
        """An empty figure of this size."""
        return Figure(figsize=(self.width_mm * MM, self.height_mm * MM))

    def tissue(self, figure: Figure) -> Axes:
        """The tissue's panel."""
        return self._axes(figure, 0, GAP_MM, PANEL_MM)

    def panel(self, figure: Figure, row: int, column: int) -> Axes:
        """A map's panel."""
        return self._axes(figure, row, self.left_mm + column * (PANEL_MM + GAP_MM), PANEL_MM)

    def legend(self, figure: Figure, row: int) -> Axes:
        """The place of a row's colour scale."""
        return self._axes(figure, row, self.left_mm + self.columns * (PANEL_MM + GAP_MM), LEGEND_MM)

    def _axes(self, figure: Figure, row: int, left_mm: float, width_mm: float) -> Axes:
        high = PANEL_MM * self.aspect
        top = HEADING_MM + self.lines * LINE_MM + row * (high + LINE_MM + GAP_MM)
        bottom = self.height_mm - top - high
        place = (left_mm / self.width_mm, bottom / self.height_mm, width_mm / self.width_mm, high / self.height_mm)
        return figure.add_axes(place)


def columns_of(slide_map: SlideMap, systems: Sequence[str]) -> dict[str, np.ndarray]:
    """Values (N, P) by title: what was measured, if anything was, and the systems."""
    measured = {} if slide_map.truth is None else {MEASURED: slide_map.truth}
    return measured | {title: slide_map.predictions[title] for title in systems}


def heading(slide_map: SlideMap) -> str:
    """Say what the figure is of."""
    unit = "spots" if slide_map.um > 16 else "bins"
    said = f"{slide_map.slide_id}, {len(slide_map.centres_um):,} {unit} of {slide_map.um} µm"
    return said + (", a slide that was learnt from" if slide_map.learnt_from else "")


def beneath(slide_map: SlideMap, title: str, column: int, ceiling: float | None) -> str:
    """What stands below a map's title: its PCC, or the noise ceiling of what was measured."""
    if title == MEASURED:
        return "" if ceiling is None or not math.isfinite(ceiling) else f"ceiling ≤ {ceiling:.2f}"
    if slide_map.truth is None:
        return ""
    one = slice(column, column + 1)
    pcc = evaluate(slide_map.predictions[title][:, one], slide_map.truth[:, one]).gene_pcc[0]
    return f"PCC {pcc:.2f}" if math.isfinite(pcc) else "PCC –"


def scale_of(slide_map: SlideMap, column: int) -> Normalize:
    """The colours' scale of a gene: from what was measured, or of all that was predicted where nothing was."""
    values = [each[:, column] for each in slide_map.predictions.values()]
    if slide_map.truth is not None and np.isfinite(slide_map.truth[:, column]).any():
        values = [slide_map.truth[:, column]]
    low, high = np.nanpercentile(np.concatenate(values), ENDS)
    return Normalize(low, max(high, low + 1e-6))


def box_of(slide_map: SlideMap) -> Box:
    """What is shown of the slide: its rows, and a margin about them."""
    half = slide_map.um / 2
    low, high = slide_map.centres_um.min(axis=0) - half, slide_map.centres_um.max(axis=0) + half
    margin = MARGIN * (high - low).max()
    return (low[0] - margin, low[1] - margin, high[0] + margin, high[1] + margin)


def frame(axes: Axes, box: Box) -> Axes:
    """An empty panel of the slide, y running down."""
    axes.set_xlim(box[0], box[2])
    axes.set_ylim(box[3], box[1])
    axes.set_aspect("equal")
    axes.set_xticks([])
    axes.set_yticks([])
    axes.spines[:].set_visible(False)
    return axes


def draw_map(axes: Axes, slide_map: SlideMap, values: np.ndarray, scale: Normalize, box: Box) -> None:
    """Draw values (N,) on a panel, over the bleached tissue; spots that lie on no lattice are discs."""
    if slide_map.picture is not None:
        lay_tissue(axes, slide_map.picture, box, pale=PALE)
    lattice = slide_map.lattice
    if lattice is None:
        side, places = np.full(len(values), float(slide_map.um)), axes.transData
        discs = EllipseCollection(
            side, side, np.zeros(len(values)), units="xy", offsets=slide_map.centres_um, offset_transform=places,
            array=values, cmap=MAP, norm=scale, linewidths=0, rasterized=True,
        )  # fmt: skip
        axes.add_collection(discs)
        return
    image = axes.imshow(np.ma.masked_invalid(lattice.raster(values)), cmap=MAP, norm=scale, interpolation="none")
    to_um = np.vstack([lattice.to_um, [0, 0, 1]])  # of a cell's column and row
    image.set_transform(Affine2D(to_um) + axes.transData)
    frame(axes, box)


def lay_tissue(axes: Axes, picture: Picture, box: Box, *, pale: float = 0.0) -> None:
    """Lay the part of the slide's picture that is shown on a panel, no finer than can be seen; bleached by a share."""
    height, width = picture.pixels.shape[:2]
    first = [max(0, math.floor(edge / picture.um_per_px)) for edge in box[:2]]
    last = [min(most, math.ceil(edge / picture.um_per_px)) for edge, most in zip(box[2:], (width, height), strict=True)]
    part = picture.pixels[first[1] : last[1], first[0] : last[0]]
    if part.size == 0:
        return
    fold = max(1, part.shape[1] // (BENEATH_PX if pale else TISSUE_PX))
    small = np.asarray(Image.fromarray(part).reduce(fold), np.float64)
    shown = np.rint(small + (255 - small) * pale).astype(np.uint8)
    left, top = (edge * picture.um_per_px for edge in first)
    right, bottom = left + part.shape[1] * picture.um_per_px, top + part.shape[0] * picture.um_per_px
    axes.imshow(shown, extent=(left, right, bottom, top), interpolation="antialiased")
    frame(axes, box)  # which a picture sets anew


def scale_bar(axes: Axes, box: Box) -> None:
    """Draw a bar of a round length below a panel, and say its length."""
    width_um = box[2] - box[0]
    length_um = round_step(width_um / 6)
    y = -0.035
    axes.plot(
        [0, length_um / width_um],
        [y, y],
        transform=axes.transAxes,
        color="black",
        linewidth=1.8,
        clip_on=False,
        solid_capstyle="butt",
    )
    said = f"{length_um:g} µm" if length_um < 1000 else f"{length_um / 1000:g} mm"
    axes.text(0, y - 0.03, said, transform=axes.transAxes, va="top", fontsize=7)

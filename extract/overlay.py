"""The overlay picture of a slide: bins, spots and regions drawn where the coordinates say they are.

In: a slide, its µm/px and its counts. Out: one picture. Left the whole slide, with the outline of the bins in tissue,
the 128 µm regions and the spots; right two windows at full resolution, one across the edge of the tissue and one inside
it, with the outline of each bin or spot. A shift by 16 µm, swapped axes or a wrong image are seen at once.
"""

import math
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import matplotlib
import numpy as np
from PIL import Image, ImageDraw, ImageFont
from scipy.spatial import cKDTree

from extract.config import GeometryConfig
from extract.lattice import measure_lattice
from magnet_core.grid import tile
from magnet_core.records import Assay, SlideCounts
from magnet_core.slides import ScaledSlide, SlideImage, thumbnail

# N rows (bins or spots), M squares; h, w rows and columns of a picture

OVERVIEW_PX, INSET_PX, MARGIN_PX = 1060, 520, 20
TISSUE, SPOTS, REGIONS, PATCHES = (0, 90, 255), (225, 120, 0), (0, 130, 60), (215, 0, 120)
INK = (20, 20, 20)
FAINT = 110  # of 255: opacity of region lines over the whole slide, where they lie close
SPOT_DIAMETER_UM = 55.0  # Visium's
LEGACY_PITCH_UM, LEGACY_DIAMETER_UM = 200.0, 100.0
BIN_WINDOW_UM, SPOT_WINDOW_PITCHES = 160.0, 2.5  # side of a window: in µm for bins, in pitches for spots
_EDGE_CANDIDATES = 300  # rows at the edge of the tissue among which the one of most contrast is shown
_NICE_LENGTHS_UM = (10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10000)
_TITLE_SIZE, _TEXT_SIZE = 17, 14


def draw_overlay(
    slide: SlideImage,
    mpp: float,
    counts: SlideCounts,
    *,
    title: Sequence[str],
    sizes: GeometryConfig | None = None,
) -> Image.Image:
    """Draw one slide; `title` is set above, a line each. Patches have the `sizes` of a run, or the default ones."""
    picture, scale = thumbnail(slide, OVERVIEW_PX)
    marks = Marks(counts, mpp, sizes or GeometryConfig())
    insets = [
        ("at the edge of the tissue", _inset(slide, mpp, marks.edge_um(picture, mpp / scale), marks)),
        ("inside the tissue", _inset(slide, mpp, marks.middle_um(), marks)),
    ]
    return _page(_overview(picture, mpp / scale, marks), insets, title, marks)


class Marks:
    """What is drawn of a slide's counts: centres in µm, and how their outlines look."""

    def __init__(self, counts: SlideCounts, mpp: float, sizes: GeometryConfig) -> None:
        self.sizes = sizes
        self.on_bins = counts.spots is None
        assay = _finest(counts)
        self.points_um = assay.centres_px * mpp  # (N, 2)
        lattice = measure_lattice(self.points_um) if len(assay) > 1 else None
        measured_um = lattice.pitch_px if lattice else sizes.spot_patch_um
        self.pitch_um = assay.pitch_um or measured_um
        self.angle = lattice.angle if lattice else 0.0
        tiled_pitch_um = self.pitch_um if self.on_bins else 0.0  # as `extract.levels` lays them
        self.diameter_um = LEGACY_DIAMETER_UM if assay.pitch_um == LEGACY_PITCH_UM else SPOT_DIAMETER_UM
        self.regions_um = tile(self.points_um, sizes.region_patch_um, pitch_um=tiled_pitch_um).centres_um
        self.spots_um = self.points_um
        if self.on_bins:
            self.spots_um = tile(self.points_um, sizes.spot_patch_um, pitch_um=tiled_pitch_um).centres_um

    @property
    def window_um(self) -> float:
        """Side of the windows that are shown at full resolution."""
        return BIN_WINDOW_UM if self.on_bins else max(BIN_WINDOW_UM, SPOT_WINDOW_PITCHES * self.pitch_um)

    def near(self, centre_um: np.ndarray, points_um: np.ndarray, *, reach_um: float) -> np.ndarray:
        """Those of the points that lie within `reach_um` of a window around `centre_um`, (n, 2)."""
        inside = (np.abs(points_um - centre_um) < self.window_um / 2 + reach_um).all(axis=1)
        near: np.ndarray = points_um[inside]
        return near

    def middle_um(self) -> np.ndarray:
        """Centre of the row nearest to the middle of all rows, (2,)."""
        middle = np.median(self.points_um, axis=0)
        nearest: np.ndarray = self.points_um[np.argmin(((self.points_um - middle) ** 2).sum(axis=1))]
        return nearest

    def edge_um(self, picture: np.ndarray, picture_mpp: float) -> np.ndarray:
        """Centre of the row at the edge of the tissue around which the picture (h, w, 3) has most contrast, (2,)."""
        tree = cKDTree(self.points_um)
        every = self.points_um[:: max(1, len(self.points_um) // 20_000)]
        around = tree.query_ball_point(every, 3.2 * self.pitch_um, return_length=True)
        at_edge = every[np.argsort(np.abs(around - 0.55 * around.max()), kind="stable")[: len(every) // 20 + 1]]
        at_edge = at_edge[:: max(1, len(at_edge) // _EDGE_CANDIDATES)]
        grey, half = picture.mean(axis=2), max(1, round(self.window_um / 2 / picture_mpp))

        def contrast(point_um: np.ndarray) -> float:
            column, row = (point_um / picture_mpp).astype(int)
            if min(row, column, grey.shape[0] - row, grey.shape[1] - column) < half:
                return 0.0
            return float(grey[row - half : row + half, column - half : column + half].std())

        return max(at_edge, key=contrast)


def scale_bar_um(visible_um: float) -> int:
    """Length of a round scale bar, at most a third of what is visible."""
    return max((length for length in _NICE_LENGTHS_UM if length <= visible_um / 3), default=_NICE_LENGTHS_UM[0])


def covered_by(points_px: np.ndarray, size: tuple[int, int], *, side_px: float) -> np.ndarray:
    """Pixels (h, w) that lie within squares of `side_px` around points (N, 2); size is (width, height)."""
    mask = np.zeros(size[::-1], dtype=bool)
    steps = np.arange(math.ceil(side_px)) - (math.ceil(side_px) - 1) / 2
    for dy in steps:
        for dx in steps:
            x, y = np.floor(points_px + (dx, dy)).astype(np.int64).T
            inside = (x >= 0) & (x < size[0]) & (y >= 0) & (y < size[1])
            mask[y[inside], x[inside]] = True
    return mask


@cache
def _font(size: int) -> ImageFont.FreeTypeFont:
    """The font of our figures; Pillow's own lacks µ."""
    return ImageFont.truetype(Path(matplotlib.get_data_path(), "fonts/ttf/DejaVuSans.ttf"), size)


def _finest(counts: SlideCounts) -> Assay:
    return counts.spots if counts.spots is not None else counts.bins[min(counts.bins)]


def _overview(picture: np.ndarray, picture_mpp: float, marks: Marks) -> Image.Image:
    """Draw regions, spots and the outline of all bins over the whole slide."""
    picture = picture.copy()
    if marks.on_bins:
        height, width = picture.shape[:2]
        mask = covered_by(marks.points_um / picture_mpp, (width, height), side_px=marks.pitch_um / picture_mpp)
        padded = np.pad(mask, 1)
        whole = padded[:-2, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :-2] & padded[1:-1, 2:]
        picture[mask] = (0.9 * picture[mask] + 0.1 * np.array(TISSUE)).astype(np.uint8)
        picture[mask & ~whole] = TISSUE
    image = Image.fromarray(picture)
    draw = ImageDraw.Draw(image, "RGBA")
    dot_px = max(2.0, min(6.0, 0.3 * marks.sizes.spot_patch_um / picture_mpp))
    for point in marks.regions_um / picture_mpp:
        _square(draw, point, marks.sizes.region_patch_um / picture_mpp, colour=(*REGIONS, FAINT))
    for point in marks.spots_um / picture_mpp:
        _circle(draw, point, dot_px if marks.on_bins else marks.diameter_um / picture_mpp, colour=SPOTS)
    _scale_bar(draw, image.size, picture_mpp)
    return image


def _inset(slide: SlideImage, mpp: float, centre_um: np.ndarray, marks: Marks) -> Image.Image:
    """Draw one window with the outlines of its bins or spots, and one patch of each level in its middle."""
    out_mpp = marks.window_um / INSET_PX
    corner = np.round(centre_um / out_mpp - INSET_PX / 2).astype(int)
    left, top = corner.tolist()
    image = Image.fromarray(ScaledSlide(slide, mpp, out_mpp).read(left, top, INSET_PX, INSET_PX))
    draw = ImageDraw.Draw(image)
    for point in marks.near(centre_um, marks.points_um, reach_um=marks.pitch_um) / out_mpp - corner:
        if marks.on_bins:
            _square(draw, point, marks.pitch_um / out_mpp, colour=TISSUE, angle=marks.angle)
        else:
            _circle(draw, point, marks.diameter_um / out_mpp, colour=SPOTS, width=2)
    for point in marks.near(centre_um, marks.regions_um, reach_um=marks.sizes.region_patch_um) / out_mpp - corner:
        _square(draw, point, marks.sizes.region_patch_um / out_mpp, colour=REGIONS, width=2)
    for side_um, colour in ((marks.sizes.spot_patch_um, SPOTS), (marks.sizes.bin_patch_um, PATCHES)):
        _square(draw, centre_um / out_mpp - corner, side_um / out_mpp, colour=colour, width=2)
    _scale_bar(draw, image.size, out_mpp)
    return image


def _page(
    overview: Image.Image, insets: Sequence[tuple[str, Image.Image]], title: Sequence[str], marks: Marks
) -> Image.Image:
    """Set title, pictures and legend on one page."""
    top = MARGIN_PX + 26 * len(title) + MARGIN_PX
    right = max(overview.width, 700) + 2 * MARGIN_PX
    height = max(overview.height, len(insets) * (INSET_PX + 30)) + top + 40
    page = Image.new("RGB", (right + INSET_PX + MARGIN_PX, height), "white")
    draw = ImageDraw.Draw(page)
    for number, line in enumerate(title):
        _write(draw, (MARGIN_PX, MARGIN_PX + 26 * number), " ".join(line.split()), size=_TITLE_SIZE)
    page.paste(overview, (MARGIN_PX, top))
    for number, (text, inset) in enumerate(insets):
        y = top + number * (INSET_PX + 30)
        page.paste(inset, (right, y))
        _write(draw, (right, y + INSET_PX + 4), text)
    x = float(MARGIN_PX)
    for colour, text in _legend(marks):
        y = top + overview.height + 10
        draw.rectangle((x, y + 2, x + 14, y + 16), outline=colour, width=3)
        x += 40 + _write(draw, (x + 20, y), text)
    return page


def _legend(marks: Marks) -> list[tuple[tuple[int, int, int], str]]:
    regions = (REGIONS, f"region {marks.sizes.region_patch_um:.0f} µm")
    patch = (PATCHES, f"bin patch {marks.sizes.bin_patch_um:.0f} µm")
    if marks.on_bins:
        return [(TISSUE, f"{marks.pitch_um:.0f} µm bins in tissue"), regions, (SPOTS, "spots (right: patch)"), patch]
    return [regions, (SPOTS, f"spots of {marks.diameter_um:.0f} µm, and spot patch"), patch]


def _square(
    draw: ImageDraw.ImageDraw,
    centre: np.ndarray,
    side: float,
    *,
    colour: tuple[int, ...],
    angle: float = 0.0,
    width: int = 1,
) -> None:
    x, y = side / 2 * math.cos(angle), side / 2 * math.sin(angle)
    corners = centre + np.array([(x - y, y + x), (-x - y, x - y), (-x + y, -y - x), (x + y, y - x)])
    draw.polygon([tuple(corner) for corner in corners.tolist()], outline=colour, width=width)


def _circle(
    draw: ImageDraw.ImageDraw, centre: np.ndarray, diameter: float, *, colour: tuple[int, int, int], width: int = 1
) -> None:
    x, y = centre.tolist()
    half = diameter / 2
    draw.ellipse((x - half, y - half, x + half, y + half), outline=colour, width=width)


def _scale_bar(draw: ImageDraw.ImageDraw, size: tuple[int, int], mpp: float) -> None:
    """Draw a bar of a round length in the lower left corner, on a white ground."""
    length_um = scale_bar_um(size[0] * mpp)
    left, bottom, length = 14, size[1] - 14, length_um / mpp
    draw.rectangle((left - 6, bottom - 32, left + max(length, 70) + 6, bottom + 6), fill="white")
    draw.rectangle((left, bottom - 5, left + length, bottom), fill=INK)
    _write(draw, (left, bottom - 29), f"{length_um / 1000:g} mm" if length_um >= 1000 else f"{length_um} µm")


def _write(draw: ImageDraw.ImageDraw, place: tuple[float, float], text: str, *, size: int = _TEXT_SIZE) -> float:
    """Write a line and return its length."""
    draw.text(place, text, fill=INK, font=_font(size))
    return draw.textlength(text, font=_font(size))

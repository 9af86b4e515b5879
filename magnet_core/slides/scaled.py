"""The slide as seen at a wanted resolution: 0.25 µm/px for the encoders (paper, section 3), or a thumbnail.

In: a slide and its µm/px. Out: windows in output pixels, whose origin is the slide's top-left corner. Windows are
seamless: the value of an output pixel does not depend on the window it is read in, so neighbours join exactly.
"""

from collections.abc import Iterator
from math import ceil, floor, log2
from typing import NamedTuple

import numpy as np
from PIL import Image

from magnet_core.slides.base import SlideImage
from magnet_core.units import WORKING_MPP

SAME_MPP = 1e-3  # a level within 0.1% of the wanted resolution is copied, not resampled
FILTER = Image.Resampling.BICUBIC  # widened by Pillow when it shrinks: antialiased
FILTER_REACH = 2.0  # pixels to each side, at the coarser of the two resolutions
REDUCED_STEP = 4.0  # of a stronger shrinking, whole-number box means do the part beyond this: faster
BLOCK_PX = 512  # output pixels that are resampled in one piece
SINGLE_BITS = 24  # of a single-precision number: multiples of 2**-24 of its range are exact
BAND_PX = 2**25  # level pixels that a thumbnail holds at a time


class ScaledSlide:
    """A slide at `out_mpp` µm/px, given that its level 0 has `mpp` µm/px.

    mpp      µm per output pixel
    size_px  width and height in output pixels
    scale    output pixels per level-0 pixel, mpp / out_mpp
    colours  what each value of red, green and blue is replaced by, (3, 256) uint8, see `magnet_core.slides.stain`

    Pillow takes positions in single precision, which would give an output pixel other weights in another window.
    Positions are therefore rounded to what is exact; where a level is copied, to whole pixels. So that the rounded
    steps do not add up, the middle of each block of 512 output pixels is at its true place: no pixel is off by more
    than 1/100 of an output pixel (copied: 3/4), however large the slide.
    """

    def __init__(
        self, slide: SlideImage, mpp: float, out_mpp: float = WORKING_MPP, *, colours: np.ndarray | None = None
    ) -> None:
        self._slide = slide
        self._colours = colours
        self.mpp = out_mpp
        self._level = _nearest_finer_level(slide.downsamples, out_mpp / mpp)
        self._true_step = out_mpp / mpp / slide.downsamples[self._level]  # level pixels per output pixel
        copied = abs(self._true_step - 1) <= SAME_MPP
        self._box = 1 if copied else max(1, int(self._true_step / REDUCED_STEP))
        self._quantum = 1.0 if copied else self._box * _exact_fraction(self._true_step / self._box)
        self._step = max(1, round(self._true_step / self._quantum)) * self._quantum
        self.scale = mpp / out_mpp
        self.size_px = max(1, round(slide.size_px[0] * self.scale)), max(1, round(slide.size_px[1] * self.scale))

    @property
    def source_px(self) -> float:
        """Level pixels that are decoded per output pixel, in area."""
        return self._true_step**2

    def read(self, x: int, y: int, w: int, h: int) -> np.ndarray:
        """Read a window as (h, w, 3) uint8; (x, y) is its top-left in output pixels; white outside the slide."""
        window = self._read(x, y, w, h)
        if self._colours is None:
            return window
        return np.stack([self._colours[colour][window[..., colour]] for colour in range(3)], axis=-1)

    def _read(self, x: int, y: int, w: int, h: int) -> np.ndarray:
        if self._true_step == 1.0:
            return self._slide.read_level(self._level, x, y, w, h)
        window = np.empty((h, w, 3), np.uint8)
        for rows in self._pieces(y, h):
            for columns in self._pieces(x, w):
                window[rows.within, columns.within] = self._read_piece(columns, rows)
        return window

    def _pieces(self, start: int, length: int) -> Iterator["_Piece"]:
        """Cut a range of output pixels at the borders of blocks, and place each part on the level."""
        for block in range(start // BLOCK_PX, ceil((start + length) / BLOCK_PX)):
            middle = block * BLOCK_PX + BLOCK_PX // 2
            first, end = max(start, block * BLOCK_PX), min(start + length, (block + 1) * BLOCK_PX)
            position = round(middle * self._true_step / self._quantum) * self._quantum + (first - middle) * self._step
            yield _Piece(slice(first - start, end - start), end - first, position)

    def _read_piece(self, columns: "_Piece", rows: "_Piece") -> np.ndarray:
        w, h = columns.length, rows.length
        if self._step == 1.0:
            return self._slide.read_level(self._level, int(columns.position), int(rows.position), w, h)
        left, right = self._span(columns)
        top, bottom = self._span(rows)
        image = Image.fromarray(self._slide.read_level(self._level, left, top, right - left, bottom - top))
        if self._box > 1:
            image = image.reduce(self._box)
        x, y = (columns.position - left) / self._box, (rows.position - top) / self._box
        step = self._step / self._box
        # One axis at a time: left to itself, Pillow orders them by the window's size, and rounds in between.
        image = image.resize((w, image.height), FILTER, box=(x, 0, x + w * step, image.height))
        return np.asarray(image.resize((w, h), FILTER, box=(0, y, w, y + h * step)))

    def _span(self, piece: "_Piece") -> tuple[int, int]:
        """First and end level pixel that a piece needs, on the grid of box means."""
        reach = FILTER_REACH * max(self._step, 1.0) + 1
        first = floor((piece.position - reach) / self._box) * self._box
        end = ceil((piece.position + piece.length * self._step + reach) / self._box) * self._box
        return first, end


class _Piece(NamedTuple):
    """Output pixels that lie in one block, along one axis: where in the window, and from which level pixel on."""

    within: slice
    length: int
    position: float


def thumbnail(slide: SlideImage, max_px: int) -> tuple[np.ndarray, float]:
    """Return the whole slide as (h, w, 3) uint8, neither side above `max_px`, and its scale.

    The scale is in thumbnail pixels per level-0 pixel. The slide is read in bands: memory does not grow with it.
    """
    scaled = ScaledSlide(slide, 1.0, max(1.0, max(slide.size_px) / max_px))
    width, height = scaled.size_px
    picture = np.empty((height, width, 3), np.uint8)
    rows = max(1, floor(BAND_PX / (width * scaled.source_px)))
    for top in range(0, height, rows):
        picture[top : top + rows] = scaled.read(0, top, width, min(rows, height - top))
    return picture, scaled.scale


def _exact_fraction(step: float) -> float:
    """The finest power of two whose multiples are exact, in single precision, within a block and its margins."""
    extent = BLOCK_PX * step + 4 * FILTER_REACH * max(step, 1.0)
    return 2.0 ** (ceil(log2(extent)) - SINGLE_BITS)


def _nearest_finer_level(downsamples: tuple[float, ...], limit: float) -> int:
    """Return the coarsest level that is not coarser than `limit`; level 0 where there is none."""
    finer = [number for number, downsample in enumerate(downsamples) if downsample <= limit * (1 + SAME_MPP)]
    return max(finer, key=lambda number: downsamples[number], default=0)

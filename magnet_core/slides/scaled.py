"""The slide as seen at a wanted resolution: 0.25 µm/px for the encoders (paper, section 3), or a thumbnail.

In: a slide and its µm/px. Out: windows in output pixels, whose origin is the slide's top-left corner. Windows are
seamless: the value of an output pixel does not depend on the window it is read in, so neighbours join exactly.
"""

from math import ceil, floor

import numpy as np
from PIL import Image

from magnet_core.slides.base import Slide
from magnet_core.units import WORKING_MPP

SAME_MPP = 1e-3  # a level within 0.1% of the wanted resolution is taken as it is
FILTER = Image.Resampling.BICUBIC  # widened by Pillow when it shrinks: antialiased
FILTER_REACH = 2.0  # pixels to each side, at the coarser of the two resolutions
REDUCED_STEP = 4.0  # of a stronger shrinking, whole-number box means do the part beyond this: faster
STEPS_PER_PX = 1024  # the step is rounded to this fraction of a pixel: see ScaledSlide
BAND_PX = 2**25  # level pixels that a thumbnail holds at a time


class ScaledSlide:
    """A slide at `out_mpp` µm/px, given that its level 0 has `mpp` µm/px.

    size_px  width and height in output pixels
    scale    output pixels per level-0 pixel. Coordinates must be placed with it, not with mpp / out_mpp, from which it
             differs by some 0.1%: over a whole slide that would be 100 pixels.

    It differs because a level within 0.1% of the wanted resolution is taken as it is, and because the step from one
    output pixel to the next is a multiple of 1/1024 of a level pixel. Pillow takes windows in single precision, in
    which such multiples are exact: an output pixel gets the same weights in whichever window it lies.
    """

    def __init__(self, slide: Slide, mpp: float, out_mpp: float = WORKING_MPP) -> None:
        self._slide = slide
        self._level, self._step = _choose_level(slide.downsamples, out_mpp / mpp)
        self.scale = 1.0 / (slide.downsamples[self._level] * self._step)
        width, height = slide.size_px
        self.size_px = max(1, round(width * self.scale)), max(1, round(height * self.scale))

    @property
    def source_px(self) -> float:
        """Level pixels that are decoded per output pixel, in area."""
        return self._step**2

    def read(self, x: int, y: int, w: int, h: int) -> np.ndarray:
        """Read a window as (h, w, 3) uint8; (x, y) is its top-left in output pixels; white outside the slide."""
        if self._step == 1.0:
            return self._slide.read_level(self._level, x, y, w, h)
        factor = _box_factor(self._step)
        left, right = _span(x, w, self._step, factor)
        top, bottom = _span(y, h, self._step, factor)
        pixels = self._slide.read_level(self._level, left, top, right - left, bottom - top)
        image = Image.fromarray(pixels)
        if factor > 1:
            image = image.reduce(factor)
        step = self._step / factor  # in box means; a multiple of 1 / STEPS_PER_PX
        box_x, box_y = x * step - left / factor, y * step - top / factor
        box = (box_x, box_y, box_x + w * step, box_y + h * step)
        return np.asarray(image.resize((w, h), FILTER, box=box))


def thumbnail(slide: Slide, max_px: int) -> tuple[np.ndarray, float]:
    """Return the whole slide as (h, w, 3) uint8, and its scale. Neither side exceeds `max_px` by more than 0.1%.

    The scale is in thumbnail pixels per level-0 pixel. The slide is read in bands: memory does not grow with it.
    """
    scaled = ScaledSlide(slide, 1.0, max(1.0, max(slide.size_px) / max_px))
    width, height = scaled.size_px
    picture = np.empty((height, width, 3), np.uint8)
    rows = max(1, floor(BAND_PX / (width * scaled.source_px)))
    for top in range(0, height, rows):
        picture[top : top + rows] = scaled.read(0, top, width, min(rows, height - top))
    return picture, scaled.scale


def _choose_level(downsamples: tuple[float, ...], wanted: float) -> tuple[int, float]:
    """The coarsest level that is not coarser than `wanted`, and its pixels per output pixel; else level 0."""
    level = max(
        (number for number, downsample in enumerate(downsamples) if downsample <= wanted * (1 + SAME_MPP)),
        key=lambda number: downsamples[number],
        default=0,
    )
    step = wanted / downsamples[level]
    if abs(step - 1) <= SAME_MPP:
        return level, 1.0
    unit = _box_factor(step) / STEPS_PER_PX
    return level, max(1, round(step / unit)) * unit


def _box_factor(step: float) -> int:
    """By how much to shrink by box means before the filter, so that it still shrinks by `REDUCED_STEP` or more."""
    return max(1, int(step / REDUCED_STEP))


def _span(start: int, length: int, step: float, factor: int) -> tuple[int, int]:
    """First and end level pixel that output pixels [start, start + length) need, on the grid of box means."""
    reach = FILTER_REACH * max(step, 1.0) + 1
    first = floor((start * step - reach) / factor) * factor
    end = ceil(((start + length) * step + reach) / factor) * factor
    return first, end

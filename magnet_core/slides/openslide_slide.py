"""Scanner formats through OpenSlide: svs, ndpi, mrxs, scn, bif, tiff, DICOM.

OpenSlide takes positions in level-0 pixels. On a coarser level whose downsample is not whole (4.0001 or 2.0005, as
scanners write them) such a position falls between two pixels of the level, and what is read is shifted and blurred.
The corner alone is exact on every level: a level with such a downsample is read whole, once, from its corner. One that
is too large to be held is left out, and what wanted it is read from the next finer one.
"""

from pathlib import Path

import numpy as np
import openslide

from magnet_core.slides.base import CannotOpenError, SlideImage, on_white
from magnet_core.slides.resolution import ABSENT, Resolution, first_stated, from_pixels_per_unit, stated
from magnet_core.slides.segment_cache import SegmentCache

BLOCK_PX = 1024
MAX_WHOLE_PX = 2**26  # pixels of a level that is read whole: 192 MiB are held
CACHE_BYTES = 128 * 2**20


class OpenSlideSlide(SlideImage):
    """A slide read by OpenSlide."""

    def __init__(self, path: Path) -> None:
        try:
            self._handle = openslide.OpenSlide(path)
        except openslide.OpenSlideError as error:
            raise CannotOpenError(str(error)) from error
        self._handle.set_cache(openslide.OpenSlideCache(CACHE_BYTES))
        self._blocks = SegmentCache(CACHE_BYTES)
        self._numbers = _exact_levels(self._handle)  # the library's number of each of our levels
        sizes = [self._handle.level_dimensions[number] for number in self._numbers]
        super().__init__(path, sizes, _resolution(self._handle))

    def _fill(self, level: int, x: int, y: int, out: np.ndarray) -> None:
        height, width = out.shape[:2]
        if level == 0:
            out[:] = self._region(0, x, y, width, height)
            return
        block_px = BLOCK_PX if self._is_whole(level) else max(self.level_sizes[level])
        for top in range(y - y % block_px, y + height, block_px):
            for left in range(x - x % block_px, x + width, block_px):
                block = self._block(level, left, top, block_px)
                x0, x1 = max(x, left), min(x + width, left + block.shape[1])
                y0, y1 = max(y, top), min(y + height, top + block.shape[0])
                out[y0 - y : y1 - y, x0 - x : x1 - x] = block[y0 - top : y1 - top, x0 - left : x1 - left]

    def _is_whole(self, level: int) -> bool:
        """Whether the library's own downsample is whole; `self.downsamples` are rounded where a level's size is."""
        return bool(self._handle.level_downsamples[self._numbers[level]].is_integer())

    def _block(self, level: int, left: int, top: int, block_px: int) -> np.ndarray:
        width, height = self.level_sizes[level]
        size = min(block_px, width - left), min(block_px, height - top)
        return self._blocks.get((level, left, top), lambda: self._region(level, left, top, *size))

    def _region(self, level: int, x: int, y: int, width: int, height: int) -> np.ndarray:
        number = self._numbers[level]
        step = int(self._handle.level_downsamples[number])  # whole, or the position is the corner
        try:
            region = self._handle.read_region((x * step, y * step), number, (width, height))
        except openslide.OpenSlideError as error:
            raise self._damaged(level, x, y, error) from error
        return on_white(region)

    def close(self) -> None:
        """Close the file and forget decoded blocks."""
        self._handle.close()
        self._blocks.clear()


def _exact_levels(handle: openslide.OpenSlide) -> list[int]:
    """Number the levels whose pixels can be read as they are stored: of a whole downsample, or small enough."""
    return [
        number
        for number, (downsample, size) in enumerate(zip(handle.level_downsamples, handle.level_dimensions, strict=True))
        if number == 0 or downsample.is_integer() or size[0] * size[1] <= MAX_WHOLE_PX
    ]


def _resolution(handle: openslide.OpenSlide) -> Resolution:
    mpp = _pair(handle, "openslide.mpp-x", "openslide.mpp-y")
    per_unit = _pair(handle, "tiff.XResolution", "tiff.YResolution")
    unit = handle.properties.get("tiff.ResolutionUnit", "")
    return first_stated(
        stated(*mpp, "OpenSlide property openslide.mpp-x") if mpp else ABSENT,
        from_pixels_per_unit(*per_unit, unit) if per_unit else ABSENT,
    )


def _pair(handle: openslide.OpenSlide, x_name: str, y_name: str) -> tuple[float, float] | None:
    if x_name not in handle.properties or y_name not in handle.properties:
        return None
    try:
        return float(handle.properties[x_name]), float(handle.properties[y_name])
    except ValueError:  # text where a number should be states nothing
        return None

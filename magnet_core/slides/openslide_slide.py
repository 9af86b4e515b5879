"""Scanner formats through OpenSlide: svs, ndpi, mrxs, scn, bif, tiff, DICOM.

OpenSlide takes positions in level-0 pixels. On a coarser level whose downsample is not whole (4.0001, as scanners write
them) such a position falls between two pixels and the window is interpolated: the same pixel would differ from window
to window. Coarser levels are therefore read in fixed blocks.
"""

from pathlib import Path

import numpy as np
import openslide

from magnet_core.slides.base import CannotOpenError, SlideImage, on_white
from magnet_core.slides.resolution import ABSENT, Resolution, first_stated, from_pixels_per_unit, stated
from magnet_core.slides.segment_cache import SegmentCache

BLOCK_PX = 1024
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
        super().__init__(path, list(self._handle.level_dimensions), _resolution(self._handle))

    def _fill(self, level: int, x: int, y: int, out: np.ndarray) -> None:
        height, width = out.shape[:2]
        if level == 0:
            out[:] = self._region(0, x, y, width, height)
            return
        for top in range(y - y % BLOCK_PX, y + height, BLOCK_PX):
            for left in range(x - x % BLOCK_PX, x + width, BLOCK_PX):
                block = self._block(level, left, top)
                x0, x1 = max(x, left), min(x + width, left + block.shape[1])
                y0, y1 = max(y, top), min(y + height, top + block.shape[0])
                out[y0 - y : y1 - y, x0 - x : x1 - x] = block[y0 - top : y1 - top, x0 - left : x1 - left]

    def _block(self, level: int, left: int, top: int) -> np.ndarray:
        width, height = self.level_sizes[level]
        size = min(BLOCK_PX, width - left), min(BLOCK_PX, height - top)
        return self._blocks.get((level, left, top), lambda: self._region(level, left, top, *size))

    def _region(self, level: int, x: int, y: int, width: int, height: int) -> np.ndarray:
        # The library's own downsample, not `self.downsamples`: it turns the position back with this one.
        downsample = self._handle.level_downsamples[level]
        try:
            region = self._handle.read_region((round(x * downsample), round(y * downsample)), level, (width, height))
        except openslide.OpenSlideError as error:
            raise self._damaged(level, x, y, error) from error
        return on_white(region)

    def close(self) -> None:
        """Close the file and forget decoded blocks."""
        self._handle.close()
        self._blocks.clear()


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
    return float(handle.properties[x_name]), float(handle.properties[y_name])

"""TIFF, BigTIFF (btf) and OME-TIFF through tifffile: tiled or striped, one level or a pyramid in IFDs or SubIFDs.

In: a TIFF file. Out: a slide whose levels read only the tiles or strips that a window touches. Of several images in a
file (slide, label, macro) the largest is the slide.
"""

import re
import struct
from contextlib import ExitStack
from pathlib import Path
from threading import Lock

import numpy as np
import tifffile

from magnet_core.slides.base import CannotOpenError, SlideImage
from magnet_core.slides.resolution import ABSENT, Resolution, first_stated, from_ome, from_pixels_per_unit, imagej_unit
from magnet_core.slides.segment_cache import SegmentCache
from magnet_core.slides.tiff_level import TiffLevel

# A window that moves along a row of compressed strips touches the same strips again and again: 3,600 rows of a slide
# 70,000 pixels wide fit. Tiles need far less: a row of 512-pixel tiles.
STRIP_CACHE_BYTES = 768 * 2**20
TILE_CACHE_BYTES = 128 * 2**20
RESOLUTION_UNITS = {2: "inch", 3: "cm", 4: "mm", 5: "um"}  # TIFF's ResolutionUnit; 4 and 5 are not of TIFF 6.0

DECODING_ERRORS = (ValueError, RuntimeError, OSError, MemoryError)  # tifffile's, imagecodecs', the file system's
# What broken tags raise; MemoryError where a description claims more planes than there is memory.
OPENING_ERRORS = (*DECODING_ERRORS, LookupError, ArithmeticError, TypeError, AttributeError, struct.error)


MAX_PLANES = 10_000  # that a description may claim: tifffile makes a list of them
PLANE_COUNTS = re.compile(r"""(?:Size[ZCT]|First[ZCT]|IFD|PlaneCount|NumPlanes)\s*=\s*["']\s*(\d+)""")
IMAGE_SIDES = re.compile(r"""Size[XY]\s*=\s*["']\s*(\d+)""")
MAX_SIDE_PX = 2**24


class TiffSlide(SlideImage):
    """A slide read by tifffile."""

    def __init__(self, path: Path) -> None:
        try:
            self._tif = tifffile.TiffFile(path)
            with ExitStack() as on_error:
                on_error.callback(self._tif.close)
                _refuse_absurd_claims(self._tif)
                slide = max(self._tif.series, key=lambda s: s.keyframe.imagewidth * s.keyframe.imagelength)
                self._levels = self._open_levels(path, slide)
                super().__init__(path, [level.size_px for level in self._levels], _resolution(self._tif, slide))
                self._levels[0].fill(0, 0, np.empty((1, 1, 3), np.uint8))  # its compression is one we can decode
                on_error.pop_all()
        except OPENING_ERRORS as error:
            raise CannotOpenError(str(error) or type(error).__name__) from error

    def _open_levels(self, path: Path, slide: tifffile.TiffPageSeries) -> list[TiffLevel]:
        self._cache = SegmentCache(TILE_CACHE_BYTES if slide.keyframe.is_tiled else STRIP_CACHE_BYTES)
        lock = Lock()
        return [TiffLevel(series, path, cache=self._cache, lock=lock) for series in slide.levels]

    def _fill(self, level: int, x: int, y: int, out: np.ndarray) -> None:
        try:
            self._levels[level].fill(x, y, out)
        except DECODING_ERRORS as error:
            raise self._damaged(level, x, y, error) from error

    def close(self) -> None:
        """Close the file and forget decoded tiles."""
        self._tif.close()
        self._cache.clear()


def _refuse_absurd_claims(tif: tifffile.TiffFile) -> None:
    """Raise ValueError where OME-XML claims more planes, or larger ones, than a slide has."""
    xml = tif.ome_metadata or ""
    for counts, limit in ((PLANE_COUNTS, MAX_PLANES), (IMAGE_SIDES, MAX_SIDE_PX)):
        for found in counts.finditer(xml):
            if len(found.group(1)) > 9 or int(found.group(1)) > limit:
                raise ValueError(f"its OME-XML claims {found.group(0):.40}, above {limit:,}")


def _resolution(tif: tifffile.TiffFile, slide: tifffile.TiffPageSeries) -> Resolution:
    """What is stated of the image that is the slide, whichever else stand before it in the file."""
    page = slide.keyframe
    size_px = (page.imagewidth, page.imagelength)
    ome = from_ome(tif.ome_metadata, size_px) if tif.ome_metadata else ABSENT
    x, y = (_ratio(page.tags.valueof(name)) for name in ("XResolution", "YResolution"))
    unit = page.tags.valueof("ResolutionUnit", tifffile.RESUNIT.INCH)
    return first_stated(
        ome,
        from_pixels_per_unit(x, y, imagej_unit(page.description)),
        from_pixels_per_unit(x, y, RESOLUTION_UNITS.get(unit, "")),
    )


def _ratio(fraction: object) -> float:
    """Pixels per unit of a tag's fraction; 0 where the tag is missing or holds something else."""
    match fraction:
        case (int(numerator), int(denominator)) if denominator:
            return numerator / denominator
    return 0.0

"""One level of a TIFF: from a window to the tiles or strips that hold it, decoded and turned into RGB.

In: a tifffile page series of one image. Out: RGB uint8. Colour may be one page with 1, 3 or 4 samples, separate
planes of a page, or three pages (as Bio-Formats writes RGB). Greyscale of 1 to 8 bits and palettes go through a table
of 256 colours. Uncompressed strips in one piece are mapped: only the window's own bytes are read.

What a tile or strip would take in memory is judged before it is decoded.
"""

from collections.abc import Iterator
from functools import partial
from math import ceil
from pathlib import Path
from threading import Lock

import numpy as np
import tifffile
from PIL import Image

from magnet_core.errors import MagnetError
from magnet_core.slides.base import WHITE, CannotOpenError, on_white
from magnet_core.slides.coded_size import SIZED, coded_size
from magnet_core.slides.segment_cache import SegmentCache

# h, w rows and columns of a window; C channels as stored (1, 3 or 4)

MAX_CHANNELS = 4
IMAGE_AXES = ("YX", "YXS", "SYX", "CYX")  # tifffile's letters: S samples of a page, C channels, a page each
JPEG = 7  # tifffile turns YCbCr into RGB for this compression
# Compressions whose decoder stops at the size of the tile: none, CCITT, LZW, JPEG, deflate, PackBits, LZMA, zstd.
BOUNDED = (1, 2, 3, 4, 5, JPEG, 8, 32773, 32946, 34892, 33007, 34925, 50000)
MAX_SEGMENT_BYTES = 2**30  # of a decoded tile or strip: it is held as a whole
CONVERT = "convert it to a tiled 8-bit RGB TIFF, for example with: vips tiffsave in.tif out.tif --tile --pyramid"
TO_8_BIT = "convert it to 8-bit RGB, for example with: vips colourspace in.tif 'out.tif[tile,pyramid]' srgb"
ALPHA_MODES = {1: "RGBa", 2: "RGBA"}  # TIFF ExtraSamples: premultiplied, or not; 0 is no alpha but a spare channel


class TiffLevel:
    """A level of a TIFF slide; `tif` stays open elsewhere."""

    def __init__(self, series: tifffile.TiffPageSeries, path: Path, *, cache: SegmentCache, lock: Lock) -> None:
        page = series.keyframe
        self._path, self._page, self._pages = path, page, list(series.pages)
        self._cache, self._lock = cache, lock
        self._planes, self._samples = page.shaped[0], page.shaped[4]
        self._mode = _colour_mode(path, series, channels=len(self._pages) * self._planes * self._samples)
        self._table = _colour_table(page) if self._mode == "table" else None
        self._segment_size = _segment_size(page)
        self._mapped = page.is_memmappable and self._planes == 1 and len(self._pages) == 1 and page.dtype == np.uint8
        self.size_px = (page.imagewidth, page.imagelength)
        if not self._mapped:
            self._refuse_unbounded()

    def _refuse_unbounded(self) -> None:
        width, height = self._segment_size
        num_bytes = width * height * self._samples
        if num_bytes > MAX_SEGMENT_BYTES:
            raise MagnetError(
                self._path,
                expected=f"tiles or strips of at most {MAX_SEGMENT_BYTES >> 20:,} MiB",
                found=f"such of {width:,} × {height:,} pixels, {num_bytes >> 20:,} MiB",
                remedy=CONVERT,
            )
        compression = int(self._page.compression)
        if compression not in BOUNDED and compression not in SIZED:
            known = compression in set(tifffile.COMPRESSION)
            raise MagnetError(
                self._path,
                expected="a TIFF compressed by LZW, deflate, JPEG, JPEG 2000, JPEG XL, WebP, PNG, zstd, or not at all",
                found=f"compression {compression}" + (f", {tifffile.COMPRESSION(compression).name}" if known else ""),
                remedy=CONVERT,
            )
        columns, rows = ceil(self.size_px[0] / width), ceil(self.size_px[1] / height)
        listed = min(min(len(page.dataoffsets), len(page.databytecounts)) for page in self._pages)
        if listed < columns * rows * self._planes:
            raise CannotOpenError(f"it lists {listed:,} of {columns * rows * self._planes:,} tiles or strips")

    def fill(self, x: int, y: int, out: np.ndarray) -> None:
        """Write the window from (x, y) on into `out` (h, w, 3); it lies inside the level.

        Raises the decoder's ValueError, RuntimeError or OSError where the file is damaged.
        """
        height, width = out.shape[:2]
        if self._mode == "RGB":
            self._fill_stored(x, y, out)
            return
        channels = len(self._pages) * self._planes * self._samples
        blank = WHITE if self._table is None else self._table.sum(axis=1).argmax()
        stored = np.full((height, width, channels), blank, np.uint8)
        self._fill_stored(x, y, stored)
        out[:] = _as_rgb(stored, self._mode) if self._table is None else self._table[stored[..., 0]]

    def _fill_stored(self, x: int, y: int, stored: np.ndarray) -> None:
        """Write the channels into `stored` (h, w, C) as they are; tiles that a sparse file leaves out stay blank."""
        height, width = stored.shape[:2]
        if self._mapped:
            full = (self.size_px[1], self.size_px[0], self._samples)
            image = np.memmap(self._path, np.uint8, "r", offset=self._page.dataoffsets[0], shape=full)
            stored[:] = image[y : y + height, x : x + width]
            return
        for page in range(len(self._pages)):
            for plane in range(self._planes):
                first = (page * self._planes + plane) * self._samples
                self._fill_plane(page, plane, x, y, stored[..., first : first + self._samples])

    def _fill_plane(self, page: int, plane: int, x: int, y: int, stored: np.ndarray) -> None:
        height, width = stored.shape[:2]
        for index, left, top in self._touched(plane, x, y, width, height):
            segment = self._cache.get((self, page, index), partial(self._decode, page, index))
            if segment.size == 0:
                continue
            x0, x1 = max(x, left), min(x + width, left + segment.shape[1])
            y0, y1 = max(y, top), min(y + height, top + segment.shape[0])
            stored[y0 - y : y1 - y, x0 - x : x1 - x] = segment[y0 - top : y1 - top, x0 - left : x1 - left]

    def _touched(self, plane: int, x: int, y: int, width: int, height: int) -> Iterator[tuple[int, int, int]]:
        """Yield number, left and top of each tile or strip of a plane that the window meets."""
        step_x, step_y = self._segment_size
        columns, rows = ceil(self.size_px[0] / step_x), ceil(self.size_px[1] / step_y)
        for row in range(y // step_y, ceil((y + height) / step_y)):
            for column in range(x // step_x, ceil((x + width) / step_x)):
                yield (plane * rows + row) * columns + column, column * step_x, row * step_y

    def _decode(self, page: int, index: int) -> np.ndarray:
        """Read and decode a tile or strip as (rows, columns, samples); one that a sparse file leaves out is empty."""
        offsets, sizes = self._pages[page].dataoffsets, self._pages[page].databytecounts
        if index >= min(len(offsets), len(sizes)):
            raise OSError(f"the file does not list tile or strip {index}")
        offset, num_bytes = offsets[index], sizes[index]
        if num_bytes == 0:
            return np.empty((0, 0, self._samples), np.uint8)
        handle = self._page.parent.filehandle
        if not (isinstance(offset, int) and isinstance(num_bytes, int) and offset >= 0 and num_bytes > 0):
            raise OSError(f"the file states no place of tile or strip {index}")
        if offset + num_bytes > handle.size:
            raise OSError(f"the file ends within tile or strip {index}")
        with self._lock:
            handle.seek(offset)
            encoded = handle.read(num_bytes)
        if (compression := int(self._page.compression)) in SIZED:
            self._refuse_other_size(compression, encoded)
        jpeg = {"jpegtables": self._page.jpegtables, "jpegheader": self._page.jpegheader}
        pixels: np.ndarray = self._page.decode(encoded, index, **jpeg)[0][0]
        return pixels

    def _refuse_other_size(self, compression: int, encoded: bytes) -> None:
        width, height, channels = coded_size(compression, encoded)
        if width > self._segment_size[0] or height > self._segment_size[1] or channels > MAX_CHANNELS:
            raise ValueError(f"a tile or strip states {width:,} × {height:,} pixels of {channels} channels of itself")


def _segment_size(page: tifffile.TiffPage) -> tuple[int, int]:
    """Width and height of the page's tiles, or of its strips."""
    strip_rows = min(page.rowsperstrip, page.imagelength)  # a single strip may state any number
    size = (page.tilewidth, page.tilelength) if page.is_tiled else (page.imagewidth, strip_rows)
    for side in (*size, page.imagewidth, page.imagelength):
        if not isinstance(side, int) or side < 1:
            raise ValueError(f"its image, tiles or strips measure {side} pixels")
    return size


def _colour_table(page: tifffile.TiffPage) -> np.ndarray:
    """Colours (256, 3) uint8 of the values of a single channel; values that its bits cannot hold are the last one's."""
    last = 2**page.bitspersample - 1
    if page.photometric == tifffile.PHOTOMETRIC.PALETTE:
        if page.colormap is None or page.colormap.shape != (3, last + 1):
            raise CannotOpenError("its palette is missing or too short")
        colours = (page.colormap.T >> 8).astype(np.uint8)  # of 16 bits
    else:
        ramp = (np.arange(last + 1) * WHITE + last // 2) // last
        colours = np.repeat(ramp[:, None] if page.photometric == 1 else WHITE - ramp[:, None], 3, axis=1)
    table: np.ndarray = colours[np.minimum(np.arange(256), last)].astype(np.uint8)
    return table


def _colour_mode(path: Path, series: tifffile.TiffPageSeries, *, channels: int) -> str:
    """How the stored channels become RGB; `MagnetError` where this is not an 8-bit greyscale or colour image."""
    page = series.keyframe
    photometric = tifffile.PHOTOMETRIC(page.photometric).name if page.photometric is not None else "unknown"
    if (
        page.dtype not in (np.uint8, np.bool_)
        or series.axes not in IMAGE_AXES
        or channels not in (1, 3, 4)
        or None in series.pages
    ):
        raise MagnetError(
            path,
            expected="an 8-bit greyscale or RGB image",
            found=f"{channels} channel(s) of {page.dtype}, {photometric}, axes {series.axes}",
            remedy=TO_8_BIT,
        )
    rgb = photometric == "RGB" or (photometric == "YCBCR" and page.compression == JPEG)
    if channels == 1 and photometric in ("MINISBLACK", "MINISWHITE", "PALETTE"):
        return "L" if photometric == "MINISBLACK" and page.bitspersample == 8 else "table"
    if page.bitspersample != 8:
        raise MagnetError(path, expected="an 8-bit greyscale or RGB image",
                          found=f"{channels} channels of {page.bitspersample} bits", remedy=TO_8_BIT)  # fmt: skip
    if channels == 3 and (rgb or (photometric == "MINISBLACK" and series.axes == "CYX")):
        return "RGB"
    if channels == 4 and rgb:
        return ALPHA_MODES.get(int(page.extrasamples[0]) if page.extrasamples else 0, "RGBX")
    raise CannotOpenError(f"{channels} channel(s) of {photometric} colour, compression {page.compression}")


def _as_rgb(stored: np.ndarray, mode: str) -> np.ndarray:
    """Turn (h, w, C) as stored into (h, w, 3) RGB, or into (h, w, 1) for greyscale, on white."""
    if mode == "L":
        return stored
    if mode == "RGBX":
        return stored[..., :3]
    height, width = stored.shape[:2]
    image = Image.frombytes(mode, (width, height), stored.tobytes())
    return on_white(image.convert("RGBA"))

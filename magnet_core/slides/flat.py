"""Flat images (JPEG, PNG, also JPEG 2000, WebP, BMP) through Pillow: one level, decoded once and held in memory.

Pixels stay in the order in which the file stores them. An EXIF rotation is not applied, but told: Space Ranger and the
tools that place spots count stored pixels, so a picture turned upright would lie under its counts the wrong way round.
Who wants it turned turns the file itself before spots are placed on it.

As the whole is held, a picture has a limit of size, judged by its header before anything is decoded.
"""

import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Lock

import numpy as np
from PIL import Image

from magnet_core.console import logger
from magnet_core.errors import MagnetError
from magnet_core.slides.base import CannotOpenError, SlideImage, on_white
from magnet_core.slides.resolution import ABSENT, Resolution, from_pixels_per_unit

EIGHT_BIT_MODES = ("1", "L", "LA", "P", "PA", "RGB", "RGBA")
FORMATS = ("JPEG", "PNG", "JPEG2000", "WEBP", "BMP")  # Pillow knows more, of which some start other programs
MAX_PX = 2**28  # 16,384 × 16,384: decoding takes up to 7 bytes a pixel, 1.9 GB
BAND_PX = 2**22  # pixels that are turned into RGB at a time
# What Pillow raises on damaged files; MemoryError where a header claims a box of gigabytes.
PILLOWS_ERRORS = (OSError, SyntaxError, ValueError, LookupError, TypeError, ArithmeticError, MemoryError, struct.error)
ORIENTATION = 274  # EXIF's tag; 1 is upright
_LOG = logger(__name__)
_LIMIT_LOCK = Lock()


class FlatSlide(SlideImage):
    """A flat image as a slide of one level."""

    def __init__(self, path: Path) -> None:
        self._pixels, resolution = _decode(path)
        height, width = self._pixels.shape[:2]
        super().__init__(path, [(width, height)], resolution)

    def _fill(self, level: int, x: int, y: int, out: np.ndarray) -> None:
        height, width = out.shape[:2]
        out[:] = self._pixels[y : y + height, x : x + width]

    def close(self) -> None:
        """Release the pixels."""
        self._pixels = np.empty((0, 0, 3), np.uint8)


def _decode(path: Path) -> tuple[np.ndarray, Resolution]:
    try:
        with _no_pixel_limit(), Image.open(path, formats=FORMATS) as image:
            if image.mode not in EIGHT_BIT_MODES:
                raise MagnetError(
                    path,
                    expected="an 8-bit greyscale or RGB image",
                    found=f"pixels of Pillow mode '{image.mode}'",
                    remedy="convert it to 8-bit RGB",
                )
            _refuse_too_large(path, image.size)
            turned = image.getexif().get(ORIENTATION, 1)
            if turned not in (0, 1):
                _LOG.warning("%s: EXIF orientation %s is not applied: coordinates count stored pixels", path, turned)
            return _as_rgb(image), _from_dpi(image)
    except PILLOWS_ERRORS as error:
        raise CannotOpenError(str(error) or type(error).__name__) from error


def _refuse_too_large(path: Path, size_px: tuple[int, int]) -> None:
    width, height = size_px
    if width * height > MAX_PX:
        raise MagnetError(
            path,
            expected=f"a flat image of at most {MAX_PX:,} pixels, which is held in memory as a whole",
            found=f"{width:,} × {height:,} pixels in {path.stat().st_size:,} bytes",
            remedy="convert it to a tiled TIFF, for example with: vips tiffsave in.png out.tif --tile --pyramid",
        )


def _as_rgb(image: Image.Image) -> np.ndarray:
    """Decode to (h, w, 3), in bands, so that no second copy of the whole is made."""
    width, height = image.size
    opaque = image.mode in ("1", "L", "RGB") and "transparency" not in image.info
    pixels = np.empty((height, width, 3), np.uint8)
    rows = max(1, BAND_PX // width)
    for top in range(0, height, rows):
        band = image.crop((0, top, width, min(top + rows, height)))
        pixels[top : top + rows] = on_white(band if opaque else band.convert("RGBA"))
    return pixels


def _from_dpi(image: Image.Image) -> Resolution:
    dpi = image.info.get("dpi")
    return ABSENT if dpi is None else from_pixels_per_unit(float(dpi[0]), float(dpi[1]), "inch")


@contextmanager
def _no_pixel_limit() -> Iterator[None]:
    """Lift Pillow's limit, which is global and meant for web servers, while one image is decoded."""
    with _LIMIT_LOCK:
        limit = Image.MAX_IMAGE_PIXELS
        Image.MAX_IMAGE_PIXELS = None
        try:
            yield
        finally:
            Image.MAX_IMAGE_PIXELS = limit

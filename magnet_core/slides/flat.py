"""Flat images (JPEG, PNG) through Pillow: one level, decoded once when opened and held in memory.

Pixels stay in the order in which the file stores them: an EXIF rotation is not applied, because spot coordinates count
stored pixels.
"""

import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Lock

import numpy as np
from PIL import Image

from magnet_core.errors import MagnetError
from magnet_core.slides.base import CannotOpenError, SlideImage, on_white
from magnet_core.slides.resolution import ABSENT, Resolution, from_pixels_per_unit

EIGHT_BIT_MODES = ("L", "LA", "P", "PA", "RGB", "RGBA")
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
        with _no_pixel_limit(), Image.open(path) as image:
            if image.mode not in EIGHT_BIT_MODES:
                raise MagnetError(
                    path,
                    expected="an 8-bit greyscale or RGB image",
                    found=f"pixels of Pillow mode '{image.mode}'",
                    remedy="convert it to 8-bit RGB",
                )
            resolution = _from_dpi(image)
            opaque = image.mode in ("L", "RGB") and "transparency" not in image.info
            return on_white(image if opaque else image.convert("RGBA")), resolution
    except (OSError, SyntaxError, ValueError, struct.error) as error:
        raise CannotOpenError(str(error)) from error


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

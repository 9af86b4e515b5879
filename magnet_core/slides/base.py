"""What every slide is, whichever library decodes it.

In: windows in the pixels of one level. Out: RGB uint8, white outside the slide. A library supplies `_fill` for windows
that lie inside a level; clipping, padding, sizes and downsamples are settled here once.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from pathlib import Path
from typing import Self

import numpy as np
from PIL import Image

from magnet_core.errors import MagnetError
from magnet_core.slides.resolution import Resolution

# h, w rows and columns of a window; (x, y) = (column, row) in the pixels of a level

WHITE = 255


class CannotOpenError(Exception):
    """A library cannot open a file; the text says why. Never seen by users: the next library is tried."""


class SlideImage(ABC):
    """An open slide. Reading is thread-safe; a pickled slide reopens its file where it is unpickled.

    path         the file
    level_sizes  (width, height) of each level in pixels, finest first
    downsamples  level-0 pixels per pixel of each level, 1.0 first
    mpp          µm/px of level 0 as the file's own metadata state it, or None
    mpp_source   where that stands, or why there is none
    """

    def __init__(self, path: Path, level_sizes: list[tuple[int, int]], resolution: Resolution) -> None:
        self.path = path
        self.level_sizes = tuple(level_sizes)
        self.downsamples = tuple(_downsample(level_sizes[0], size) for size in level_sizes)
        self.mpp = resolution.mpp
        self.mpp_source = resolution.source

    @property
    def size_px(self) -> tuple[int, int]:
        """Width and height of level 0 in pixels."""
        return self.level_sizes[0]

    def read_level(self, level: int, x: int, y: int, w: int, h: int) -> np.ndarray:
        """Read a window of a level as (h, w, 3) uint8; (x, y) is its top-left in that level's pixels.

        What lies outside the slide is white. A damaged file is a `MagnetError` that names the window.
        """
        width, height = self.level_sizes[level]
        window = np.full((h, w, 3), WHITE, np.uint8)
        left, top = max(x, 0), max(y, 0)
        right, bottom = min(x + w, width), min(y + h, height)
        if left < right and top < bottom:
            self._fill(level, left, top, window[top - y : bottom - y, left - x : right - x])
        return window

    @abstractmethod
    def _fill(self, level: int, x: int, y: int, out: np.ndarray) -> None:
        """Write the pixels from (x, y) on into `out` (h, w, 3) uint8; the window lies inside the level."""

    @abstractmethod
    def close(self) -> None:
        """Release the file; reading afterwards is an error."""

    def _damaged(self, level: int, x: int, y: int, reason: object) -> MagnetError:
        return MagnetError(
            self.path,
            expected=f"readable pixels at x={x}, y={y} of level {level}",
            found=str(reason),
            remedy="compare the file with its source: a copy that differs is made again, one that does not was "
            "written wrongly and is converted anew",
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __reduce__(self) -> tuple[Callable[[Path], "SlideImage"], tuple[Path]]:
        return type(self), (self.path,)


def on_white(image: Image.Image) -> np.ndarray:
    """Compose an RGBA image, or convert an opaque one, to (h, w, 3) uint8 on white."""
    if image.mode != "RGBA":
        return np.asarray(image.convert("RGB"))
    alpha = image.getchannel("A")
    if alpha.getextrema() == (255, 255):
        return np.asarray(image.convert("RGB"))
    page = Image.new("RGB", image.size, "white")
    page.paste(image, mask=alpha)
    return np.asarray(page)


def _downsample(full: tuple[int, int], level: tuple[int, int]) -> float:
    """Level-0 pixels per level pixel; the whole number that rounding of the level's size hides, if there is one."""
    mean = (full[0] / level[0] + full[1] / level[1]) / 2
    whole = round(mean)
    hidden = all(abs(f / whole - s) <= 1 for f, s in zip(full, level, strict=True))
    return float(whole) if hidden else mean

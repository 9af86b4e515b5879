"""The tissue below a prediction, in the two sizes that Space Ranger makes and other tools look for.

In: the slide's picture, and µm/px of its full-resolution image. Out: `hires` and `lowres`, each with its scale factor.
"""

from dataclasses import dataclass

import numpy as np

from cache.picture import Picture

# h, w rows and columns of a thumbnail

LOWRES_PX = 600  # longest side, as Space Ranger's


@dataclass(frozen=True)
class Thumbnail:
    """The whole slide: `pixels` (h, w, 3) uint8, and how many of them there are per pixel of the image, in length."""

    pixels: np.ndarray
    scale: float


def thumbnails(picture: Picture | None, *, mpp: float) -> dict[str, Thumbnail]:
    """Return `hires`, the picture itself, and `lowres`; nothing where there is no picture."""
    from PIL import Image

    if picture is None:
        return {}
    hires = Thumbnail(picture.pixels, mpp / picture.um_per_px)
    height, width = picture.pixels.shape[:2]
    shrink = min(1.0, LOWRES_PX / max(height, width))
    size = max(1, round(width * shrink)), max(1, round(height * shrink))
    small = Image.fromarray(picture.pixels).resize(size, Image.Resampling.BOX)
    longest = int(width < height)  # whose rounding matters least
    return {
        "hires": hires,
        "lowres": Thumbnail(np.asarray(small), hires.scale * size[longest] / (width, height)[longest]),
    }

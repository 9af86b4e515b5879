"""A small picture of a slide, for maps to lie on: store/<slide_id>/picture.jpg.

In: the whole slide, shrunk, and the fingerprint of its image. Out: the same. Any viewer opens the file; its comment is
JSON of `scale`, pixels of the picture per pixel of the image, and `image`, the fingerprint. A checksum of all bytes
stands at its end, behind what a viewer reads.
"""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from magnet_core.checksums import append_checksum, check_appended
from magnet_core.errors import MagnetError
from magnet_core.files import replacing

# h, w rows and columns of the picture

PICTURE = "picture.jpg"
LONGEST_PX = 2000  # as Space Ranger's hires picture
MOST_PX = 1 << 25  # of a picture that is read; no picture of ours has a sixth of it
_QUALITY = 88
_EXPECTED = "a slide's picture as it was written"
_REMEDY = "delete it and run 'extract run' again: it is made anew from the image"


@dataclass(frozen=True)
class Picture:
    """The whole slide, small.

    pixels     (h, w, 3) uint8, RGB
    um_per_px  µm that a pixel is wide; the top left corner of the first is the origin of all µm of a store
    """

    pixels: np.ndarray
    um_per_px: float


@dataclass(frozen=True)
class StoredPicture:
    """What the file holds: pixels (h, w, 3) uint8, their number per pixel of the image, and the image's fingerprint."""

    pixels: np.ndarray
    scale: float
    image: str

    def at(self, mpp: float) -> Picture:
        """Return the picture of a slide whose image has `mpp` µm/px."""
        return Picture(self.pixels, mpp / self.scale)


def write_picture(path: Path, picture: StoredPicture) -> None:
    """Write the file, whole or not at all."""
    from PIL import Image

    comment = json.dumps({"scale": picture.scale, "image": picture.image}).encode()
    with replacing(path) as partial:
        Image.fromarray(picture.pixels).save(partial, "JPEG", quality=_QUALITY, comment=comment)
        append_checksum(partial)


def read_picture(path: Path) -> StoredPicture:
    """Read the file; one that is damaged, or was made by something else, is an error."""
    from PIL import Image

    check_appended(path, expected=_EXPECTED, remedy=_REMEDY, is_required=True)
    try:
        with Image.open(path, formats=["JPEG"]) as image:
            if image.width * image.height > MOST_PX:
                raise ValueError(f"{image.width} × {image.height} pixels")
            stated = json.loads(image.info["comment"])
            return StoredPicture(np.asarray(image.convert("RGB")), float(stated["scale"]), str(stated["image"]))
    except (OSError, ValueError, LookupError, TypeError, RecursionError, SyntaxError) as error:
        raise MagnetError(path, expected=_EXPECTED, found=str(error), remedy=_REMEDY) from error

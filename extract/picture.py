"""The small picture of a slide that the store keeps beside its geometry, for maps to lie on.

In: an open slide. Out: `picture.jpg` in the slide's folder of the store. The coarsest level that is fine enough is
read, in bands; a slide without such a level is decoded once more for it. A slide whose pixels beside the tissue are
damaged has no picture, and is extracted all the same.
"""

import os
from pathlib import Path

from cache.picture import LONGEST_PX, StoredPicture, write_picture
from magnet_core.console import logger
from magnet_core.errors import MagnetError
from magnet_core.slides import SlideImage, thumbnail

log = logger(__name__)


def lacks_picture(path: Path) -> bool:
    """Whether a picture is to be made: there is none, and one can be written."""
    folder = next(each for each in path.parents if each.exists())
    return not path.exists() and os.access(folder, os.W_OK)


def keep_picture(path: Path, slide: SlideImage, fingerprint: str, *, slide_id: str) -> None:
    """Make the picture of a slide, unless it is there; `fingerprint` is that of its image."""
    if path.exists():
        return
    try:
        pixels, scale = thumbnail(slide, LONGEST_PX)
    except MagnetError as error:
        log.warning("%s: no picture to lay maps on: %s", slide_id, error)
        return
    write_picture(path, StoredPicture(pixels, scale, fingerprint))

"""Which library opens a file: decided by its content, with a fixed order to fall back on.

a scanner's format that OpenSlide knows     OpenSlide, tifffile
any other TIFF                              tifffile, OpenSlide
anything else                               Pillow, OpenSlide
"""

from pathlib import Path

import openslide

from magnet_core.errors import MagnetError
from magnet_core.file_kind import refuse_stand_in
from magnet_core.slides.base import CannotOpenError, SlideImage
from magnet_core.slides.flat import FlatSlide
from magnet_core.slides.openslide_slide import OpenSlideSlide
from magnet_core.slides.tiff import TiffSlide
from magnet_core.slides.tiff_directories import check_directories

LIBRARIES: dict[str, type[OpenSlideSlide] | type[TiffSlide] | type[FlatSlide]] = {
    "OpenSlide": OpenSlideSlide,
    "tifffile": TiffSlide,
    "Pillow": FlatSlide,
}
TIFF_MAGIC = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")  # little and big endian; BigTIFF


def open_slide(path: Path) -> SlideImage:
    """Open a slide with the library that suits its content.

    A file that no library can open, or whose pixels are not 8-bit greyscale or RGB, is a `MagnetError`.
    """
    if not path.is_file():
        found = "a folder" if path.is_dir() else "nothing there"
        raise MagnetError(path, expected="a slide or image file", found=found, remedy="check the path")
    refuse_stand_in(path)
    with path.open("rb") as file:
        magic = file.read(4)
    reasons = []
    vendor = openslide.OpenSlide.detect_format(path)
    if magic in TIFF_MAGIC:
        check_directories(path, ndpi=vendor == "hamamatsu")
    for name in _order(vendor, magic):
        try:
            return LIBRARIES[name](path)
        except CannotOpenError as error:
            reasons.append(f"{name}: {error}")
    raise MagnetError(
        path,
        expected="a slide that OpenSlide, tifffile or Pillow can open",
        found=f"a file that none of those tried can ({'; '.join(reasons)})",
        remedy="check that the file is complete, or convert it to a tiled RGB TIFF",
    )


def _order(vendor: str | None, magic: bytes) -> tuple[str, ...]:
    if vendor is not None and vendor != "generic-tiff":
        return "OpenSlide", "tifffile"
    return ("tifffile", "OpenSlide") if magic in TIFF_MAGIC else ("Pillow", "OpenSlide")

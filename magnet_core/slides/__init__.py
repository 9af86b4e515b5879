"""Whole-slide images: one `SlideImage` over three libraries, and the slide as seen at a wanted µm/px.

In: a path. Out: RGB pixels of any window of any level, white outside, and the resolution the file itself states.
Formats: everything OpenSlide reads, BTF/TIFF/OME-TIFF tiled or striped, flat JPEG and PNG.
"""

from magnet_core.slides.base import SlideImage
from magnet_core.slides.opening import open_slide
from magnet_core.slides.resolution import MAX_MPP, MIN_MPP
from magnet_core.slides.scaled import ScaledSlide, thumbnail

__all__ = ["MAX_MPP", "MIN_MPP", "ScaledSlide", "SlideImage", "open_slide", "thumbnail"]

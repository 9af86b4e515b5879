"""Stains brought to one: what a laboratory's dyes, thickness and scanner do to all colours of a slide is taken back.

In: a slide and its µm/px. Out: a table by which each colour of its pixels is replaced. The optical density of each
colour, over the tissue, gets the mean and the standard deviation of a reference, as Reinhard et al. 2001 ("Color
transfer between images") do in a space of their own; density is what a dye adds to (Beer and Lambert). Far below the
mean it falls to zero in proportion, so that white stays white. A slide's table needs no other slide and no labels.
Statistics are of pixels as encoders see them: of a smaller picture, whose pixels are means, the spread says how dense
cells lie, which is not the stain's.
"""

from math import ceil

import numpy as np

from magnet_core.slides.base import SlideImage
from magnet_core.slides.scaled import ScaledSlide, thumbnail
from magnet_core.tissue import tissue_mask

# T pixels of tissue

LOOKED_AT_UM = 4.0  # side of a pixel of the picture that tissue is found on
WINDOWS, WINDOW_PX = 100, 128  # of tissue, evenly over it, that statistics are taken of
GLASS = 0.12  # a pixel of less density, mean over colours, is a gap in the tissue
LEVELS = 256
# Of red, green and blue over tissue: near those of the slides on which it was chosen (benchmarks/README.md).
MEAN = np.array([0.30, 0.62, 0.36])
SD = np.array([0.33, 0.33, 0.18])
PALEST = 0.25  # part of the mean, of the slide and of the reference, where a spread is wider
LEAST_SD = 0.02  # a slide of one colour is not drawn apart


def stain_table(slide: SlideImage, mpp: float) -> np.ndarray | None:
    """Return what becomes of each value of red, green and blue, (3, 256) uint8; None on a slide without tissue."""
    tissue = tissue_pixels(slide, mpp)
    return table_of(tissue) if len(tissue) else None


def tissue_pixels(slide: SlideImage, mpp: float) -> np.ndarray:
    """Pixels (T, 3) uint8 of windows of tissue, at the encoders' µm/px; none on a slide without tissue."""
    picture, scale = thumbnail(slide, max(1, ceil(max(slide.size_px) * mpp / LOOKED_AT_UM)))
    places = np.argwhere(tissue_mask(picture, mpp=mpp / scale))  # from top to bottom
    chosen = places[np.linspace(0, len(places) - 1, min(WINDOWS, len(places))).astype(int)]
    seen = ScaledSlide(slide, mpp)
    corners = np.rint((chosen + 0.5) / scale * seen.scale - WINDOW_PX / 2).astype(int)
    windows = [seen.read(int(x), int(y), WINDOW_PX, WINDOW_PX).reshape(-1, 3) for y, x in corners]
    pixels = np.concatenate([np.empty((0, 3), np.uint8), *windows])
    tissue: np.ndarray = pixels[optical_density(pixels).mean(axis=1) > GLASS]
    return tissue


def table_of(tissue: np.ndarray) -> np.ndarray:
    """Return the table (3, 256) uint8 of pixels of tissue (T, 3) uint8; rising in each colour."""
    density = optical_density(tissue)
    mean, sd = density.mean(axis=0), np.maximum(density.std(axis=0), LEAST_SD)
    spreads = np.minimum(1, np.minimum((1 - PALEST) * MEAN / SD, (1 - PALEST) * mean / sd))
    pale, of_pale = mean - spreads * sd, MEAN - spreads * SD
    of_each = optical_density(np.arange(LEVELS, dtype=np.uint8))[:, None]  # (256, 1)
    in_proportion = of_each * of_pale / np.maximum(pale, LEAST_SD)
    matched = np.where(of_each < pale, in_proportion, of_pale + (of_each - pale) / sd * SD)  # (256, 3)
    values = LEVELS * np.exp(-matched) - 1
    table: np.ndarray = np.rint(values).clip(0, LEVELS - 1).astype(np.uint8).T
    return table


def optical_density(values: np.ndarray) -> np.ndarray:
    """Natural logarithm of the light that was taken away, float64 from 0 (white) to 5.5 (black), in the same shape."""
    result: np.ndarray = np.log(LEVELS) - np.log(values.astype(np.float64) + 1)
    return result

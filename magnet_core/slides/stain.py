"""Stains brought to one: what a laboratory's dyes, thickness and scanner do to all colours of a slide is taken back.

In: a slide and its µm/px. Out: a table by which each colour of its pixels is replaced. The optical density of each
colour, over the tissue, gets the mean and the standard deviation of a reference, as Reinhard et al. 2001 ("Color
transfer between images") do in a space of their own; density is what a dye adds to (Beer and Lambert). More than one
standard deviation below the mean it falls to zero in proportion, so that white stays white. A slide's table needs no
other slide and no labels.
"""

from math import ceil

import numpy as np

from magnet_core.slides.base import SlideImage
from magnet_core.slides.scaled import thumbnail
from magnet_core.tissue import tissue_mask

# T pixels of tissue

LOOKED_AT_UM = 4.0  # side of a pixel of the picture that statistics are taken of
LEVELS = 256
# Of red, green and blue over the tissue of H&E at that size: the middle of several laboratories' sections.
MEAN = np.array([0.30, 0.56, 0.36])
SD = np.array([0.24, 0.25, 0.15])
PALEST = 0.25  # part of the mean, where the spread is wider
LEAST_SD = 0.02  # a slide of one colour is not drawn apart


def stain_table(slide: SlideImage, mpp: float) -> np.ndarray | None:
    """Return what becomes of each value of red, green and blue, (3, 256) uint8; None on a slide without tissue."""
    picture, scale = thumbnail(slide, max(1, ceil(max(slide.size_px) * mpp / LOOKED_AT_UM)))
    tissue = picture[tissue_mask(picture, mpp=mpp / scale)]
    return table_of(tissue) if len(tissue) else None


def table_of(tissue: np.ndarray) -> np.ndarray:
    """Return the table (3, 256) uint8 of pixels of tissue (T, 3) uint8; rising in each colour."""
    density = optical_density(tissue)
    mean, sd = density.mean(axis=0), np.maximum(density.std(axis=0), LEAST_SD)
    pale = np.maximum(mean - sd, PALEST * mean)
    of_pale = np.maximum(MEAN - (mean - pale) / sd * SD, 0)
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

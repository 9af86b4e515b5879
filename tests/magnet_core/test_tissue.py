"""Tissue is told from glass, ink and dirt by its colour, on painted pictures and on the real slide."""

from pathlib import Path

import numpy as np
import pytest

from magnet_core.slides import open_slide, thumbnail
from magnet_core.tissue import tissue_mask

MPP = 8.0
SHAPE = (160, 200)
WHITE_GLASS, GREY_GLASS, YELLOW_GLASS, PINK_GLASS = (246, 246, 246), (205, 206, 204), (246, 242, 224), (236, 224, 240)
EOSIN, HAEMATOXYLIN = (0.90, 0.62, 0.80), (0.50, 0.42, 0.68)  # share of the light that passes


def disc(x: float, y: float, radius: float) -> np.ndarray:
    row, column = np.mgrid[: SHAPE[0], : SHAPE[1]]
    inside: np.ndarray = (column - x) ** 2 + (row - y) ** 2 <= radius**2
    return inside


def paint(glass: tuple[int, int, int], tissue: np.ndarray) -> np.ndarray:
    """Stain half of the tissue's pixels with either dye, at random, and add noise."""
    rng = np.random.default_rng(0)
    picture = np.broadcast_to(np.array(glass, float), (*SHAPE, 3)).copy()
    nuclei = tissue & (rng.random(SHAPE) < 0.3)
    picture[tissue & ~nuclei] *= EOSIN
    picture[nuclei] *= HAEMATOXYLIN
    return (picture + rng.normal(0, 2, picture.shape)).clip(0, 255).astype(np.uint8)


def overlap(mask: np.ndarray, tissue: np.ndarray) -> float:
    return float((mask & tissue).sum() / (mask | tissue).sum())


@pytest.mark.parametrize("glass", [WHITE_GLASS, GREY_GLASS, YELLOW_GLASS, PINK_GLASS])
def test_tissue_is_found_on_glass_of_any_tint(glass: tuple[int, int, int]) -> None:
    tissue = disc(60, 70, 40) | disc(150, 110, 25)
    mask = tissue_mask(paint(glass, tissue), mpp=MPP)
    assert overlap(mask, tissue) > 0.9


@pytest.mark.parametrize("ink", [(20, 20, 22), (30, 60, 190), (30, 140, 70), (215, 40, 50), (128, 128, 128)])
def test_ink_is_no_tissue(ink: tuple[int, int, int]) -> None:
    tissue, stroke = disc(50, 80, 35), disc(150, 80, 25)
    picture = paint(WHITE_GLASS, tissue)
    picture[stroke] = ink
    mask = tissue_mask(picture, mpp=MPP)
    assert overlap(mask & ~disc(150, 80, 30), tissue) > 0.9
    assert (mask & stroke).sum() < 0.1 * stroke.sum()


@pytest.mark.parametrize("glass", [WHITE_GLASS, GREY_GLASS, YELLOW_GLASS, PINK_GLASS, (0, 0, 0)])
def test_a_slide_without_tissue_has_none(glass: tuple[int, int, int]) -> None:
    nothing = np.zeros(SHAPE, dtype=bool)
    assert not tissue_mask(paint(glass, nothing), mpp=MPP).any()
    assert not tissue_mask(np.full((*SHAPE, 3), glass, np.uint8), mpp=MPP).any()


def test_a_picture_full_of_tissue_is_all_tissue() -> None:
    everything = np.ones(SHAPE, dtype=bool)
    assert tissue_mask(paint(WHITE_GLASS, everything), mpp=MPP).mean() > 0.99


def test_specks_are_dropped_and_small_holes_filled() -> None:
    tissue, hole, lumen, speck = disc(80, 80, 60), disc(80, 80, 4), disc(100, 60, 15), disc(180, 20, 5)
    mask = tissue_mask(paint(WHITE_GLASS, tissue & ~hole & ~lumen | speck), mpp=MPP)
    assert mask[hole].all()
    assert not mask[disc(100, 60, 8)].any()
    assert not mask[speck].any()


def test_the_real_slide(shared_data: Path) -> None:
    with open_slide(shared_data / "CMU-1-Small-Region.svs") as slide:
        picture, scale = thumbnail(slide, 185)
    mask = tissue_mask(picture, mpp=0.499 / scale)
    assert 0.3 < mask.mean() < 0.5
    assert picture[mask].mean() < 200
    assert picture[~mask].mean() > 235

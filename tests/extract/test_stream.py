from collections import Counter
from pathlib import Path

import numpy as np
from PIL import Image

from extract.levels import reading_order
from extract.stream import TILE_PX, PatchRequest, stream_patches
from magnet_core.slides import ScaledSlide, open_slide
from magnet_core.units import WORKING_MPP


def picture(path: Path, width: int = 1700, height: int = 1300) -> np.ndarray:
    pixels = np.random.default_rng(0).integers(0, 256, size=(height, width, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    return pixels


def cut(pixels: np.ndarray, centre_um: np.ndarray, side: int) -> np.ndarray:
    """Reference: one patch out of a slide padded with white."""
    padded = np.pad(pixels, ((side, side), (side, side), (0, 0)), constant_values=255)
    x, y = (np.round(centre_um / WORKING_MPP - side / 2).astype(int) + side).tolist()
    return padded[y : y + side, x : x + side]


def request(seed: int, count: int, patch_um: float, wanted: float = 1.0) -> PatchRequest:
    rng = np.random.default_rng(seed)
    centres = rng.uniform([5.0, 5.0], [420.0, 320.0], size=(count, 2))
    return PatchRequest(centres[reading_order(centres)], patch_um, rng.random(count) < wanted)


def test_every_wanted_patch_is_the_one_at_its_coordinates_and_rows_come_in_order(tmp_path: Path) -> None:
    pixels = picture(tmp_path / "slide.png")
    requests = {"bin": request(1, 300, 28.0), "region": request(2, 20, 128.0), "spot": request(3, 90, 56.0, wanted=0.4)}
    seen: dict[str, list[int]] = {name: [] for name in requests}
    with open_slide(tmp_path / "slide.png") as slide:
        for name, first, patches in stream_patches(ScaledSlide(slide, WORKING_MPP), requests):
            for row, patch in enumerate(patches, first):
                seen[name].append(row)
                np.testing.assert_array_equal(
                    patch, cut(pixels, requests[name].centres_um[row], requests[name].side_px)
                )
    for name, rows in seen.items():
        assert rows == np.flatnonzero(requests[name].wanted).tolist()


def test_each_tile_is_read_once_for_all_levels(tmp_path: Path) -> None:
    picture(tmp_path / "slide.png")
    reads: Counter[tuple[int, int]] = Counter()

    class Counting(ScaledSlide):
        def read(self, x: int, y: int, w: int, h: int) -> np.ndarray:
            assert (w, h) == (TILE_PX, TILE_PX)
            reads[x, y] += 1
            return super().read(x, y, w, h)

    requests = {"bin": request(1, 300, 28.0), "region": request(2, 30, 128.0), "spot": request(3, 90, 56.0)}
    with open_slide(tmp_path / "slide.png") as slide:
        for _ in stream_patches(Counting(slide, WORKING_MPP), requests):
            pass
    assert set(reads.values()) == {1}


def test_nothing_wanted_reads_nothing(tmp_path: Path) -> None:
    picture(tmp_path / "slide.png", 600, 600)
    with open_slide(tmp_path / "slide.png") as slide:
        assert list(stream_patches(ScaledSlide(slide, WORKING_MPP), {"bin": request(1, 50, 28.0, wanted=0.0)})) == []

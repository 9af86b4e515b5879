from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile

from tests.train.predict.setting import block, prediction_at
from train.predict.drawing import Drawing
from train.predict.ome_tiff import TILE_PX, halved, write_ome_tiff
from train.predict.prediction import SlidePrediction

DRAWN = Drawing(("GENE1", "GENE0"))


def values_of(num: int) -> np.ndarray:
    return np.random.default_rng(0).normal(size=(num, 3)).astype(np.float32)


def read(prediction: SlidePrediction, path: Path) -> tuple[list[np.ndarray], dict[str, Any], list[str]]:
    """Levels (C, H, W), attributes of `Pixels`, and names of channels, as a reader of OME-TIFF finds them."""
    write_ome_tiff(prediction, path, DRAWN)
    with tifffile.TiffFile(path) as file:
        assert file.is_ome
        (series,) = file.series
        assert series.axes == "CYX"
        page = series.levels[0].pages[0]
        assert (page.tilewidth, page.tilelength) == (TILE_PX, TILE_PX)
        assert page.compression.name == "ADOBE_DEFLATE"
        pixels = tifffile.xml2dict(file.ome_metadata)["OME"]["Image"]["Pixels"]
        levels = [level.asarray() for level in series.levels]
    return levels, pixels, [channel["Name"] for channel in pixels["Channel"]]


def test_channels_sizes_and_values_are_those_of_the_slide(tmp_path: Path) -> None:
    cells, path = block(5, 7), tmp_path / "new" / "S1.ome.tif"
    prediction = prediction_at(cells + [2, 3], values_of(35), size_um=(800, 600))
    (pixels,), sizes, names = read(prediction, path)
    assert [found.name for found in path.parent.iterdir()] == ["S1.ome.tif"]
    assert names == ["GENE1", "GENE0"]
    assert (sizes["PhysicalSizeX"], sizes["PhysicalSizeXUnit"]) == (8, "µm")
    assert (sizes["PhysicalSizeY"], sizes["PhysicalSizeYUnit"]) == (8, "µm")
    assert pixels.dtype == np.float32
    assert pixels.shape == (2, 75, 100)  # the whole slide of 800 × 600 µm
    np.testing.assert_array_equal(pixels[:, 2:7, 3:10].reshape(2, 35).T, prediction.values[:, [1, 0]])
    assert np.isfinite(pixels).sum() == 2 * 35


@pytest.mark.parametrize("named", [True, False])
def test_the_pixel_at_the_centre_of_a_turned_bin_shows_that_bin(tmp_path: Path, named: bool) -> None:
    turn = 33 if named else 0  # without a lattice bins are taken for squares that are not turned
    prediction = prediction_at(block(9, 8), values_of(72), turn_deg=turn, origin_um=(90.7, 31.3), named=named)
    (pixels,), sizes, _ = read(prediction, tmp_path / "S1.ome.tif")
    assert sizes["PhysicalSizeX"] == 4
    column, row = np.floor(prediction.slide.fine.centres_um / 4).astype(int).T
    np.testing.assert_array_equal(pixels[:, row, column].T, prediction.values[:, [1, 0]])
    area = np.isfinite(pixels[0]).sum() * 16 / (72 * 64)
    assert area == pytest.approx(1, abs=0.05)


def test_round_spots_are_round(tmp_path: Path) -> None:
    prediction = prediction_at(2 * block(3, 3), values_of(9), um=55, named=False)
    (pixels,), sizes, _ = read(prediction, tmp_path / "S1.ome.tif")
    assert sizes["PhysicalSizeX"] == 7
    assert np.isfinite(pixels[0]).sum() * 49 / (9 * np.pi * 28**2) == pytest.approx(1, abs=0.1)


def test_each_level_of_the_pyramid_has_the_means_of_the_one_before(tmp_path: Path) -> None:
    cells = block(700, 3)
    prediction = prediction_at(cells, values_of(len(cells)))
    levels, *_ = read(prediction, tmp_path / "S1.ome.tif")
    assert [level.shape for level in levels] == [(2, 700, 3), (2, 350, 2), (2, 175, 1)]
    np.testing.assert_allclose(levels[1][0, 4, 0], levels[0][0, 8:10, :2].mean(), rtol=1e-5)
    np.testing.assert_allclose(levels[1][0, 4, 1], levels[0][0, 8:10, 2].mean(), rtol=1e-5)
    np.testing.assert_array_equal(levels[2][1], halved(levels[1][1]))
    assert np.isnan(halved(np.full((2, 2), np.nan))).all()

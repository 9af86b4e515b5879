from pathlib import Path

import numpy as np
import pytest
import torch

from cache.knn import knn_edges
from cache.store import Store
from tests.train.systems.rivals.setting import training_of
from train.systems.rivals.windows import Window, WindowRows, cut_windows, fine_windows, level_pitch_um, window_pixels


def _grid(columns: int, rows: int, *, pitch_um: float = 8.0, turn: float = 0.0) -> np.ndarray:
    y, x = np.divmod(np.arange(columns * rows), columns)
    rotation = np.array([[np.cos(turn), np.sin(turn)], [-np.sin(turn), np.cos(turn)]])
    result: np.ndarray = np.stack([x, y], axis=1) * pitch_um @ rotation
    return result


def _hexagonal(columns: int, rows: int) -> np.ndarray:
    y, x = np.divmod(np.arange(columns * rows), columns)
    return np.stack([100.0 * x + 50.0 * (y % 2), 100.0 * np.sqrt(0.75) * y], axis=1)


SCATTERED = np.concatenate([_grid(24, 24) + offset for offset in ([0, 0], [900, 40], [300, 2000], [5000, 5000])])
LAYOUTS = {
    "a square slide": _grid(50, 50),
    "a slide that lies askew": _grid(70, 30, turn=0.02),
    "spots on a hexagonal grid": _hexagonal(40, 70),
    "windows far from each other": SCATTERED,
    "rows drawn at random": np.random.default_rng(0).uniform(0, 5000, size=(1500, 2)),
    "a single row": np.zeros((1, 2)),
    "one long row": _grid(500, 1),
}


def _cut(centres_um: np.ndarray, *, window: int = 576, positions: int = 64) -> list[Window]:
    pitch_um = level_pitch_um(centres_um, knn_edges(centres_um, 8))
    return cut_windows(centres_um, pitch_um=pitch_um, window=window, positions=positions)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_row_is_in_one_window_that_fits_its_limits(layout: str) -> None:
    windows = _cut(LAYOUTS[layout], window=300, positions=32)
    np.testing.assert_array_equal(np.sort(np.concatenate([w.rows for w in windows])), np.arange(len(LAYOUTS[layout])))
    for window in windows:
        assert len(window.rows) <= 300
        assert (np.diff(window.rows) > 0).all()
        assert window.positions.min(axis=0).tolist() == [0, 0]
        assert window.positions.max() < 32


@pytest.mark.parametrize("layout", LAYOUTS)
def test_moving_a_slide_changes_neither_its_windows_nor_the_positions(layout: str) -> None:
    for here, there in zip(_cut(LAYOUTS[layout]), _cut(LAYOUTS[layout] + [1234.567, -89.1]), strict=True):
        np.testing.assert_array_equal(here.rows, there.rows)
        np.testing.assert_array_equal(here.positions, there.positions)


@pytest.mark.parametrize("turn", [0.0, 0.01])
def test_positions_are_the_columns_and_rows_of_the_grid(turn: float) -> None:
    for window in _cut(_grid(50, 50, turn=turn)):
        y, x = np.divmod(window.rows, 50)
        np.testing.assert_array_equal(window.positions, np.stack([x - x.min(), y - y.min()], axis=1))


def test_windows_of_dense_tissue_are_full_and_nearly_square() -> None:
    windows = _cut(_grid(96, 96))
    assert [len(window.rows) for window in windows] == [576] * 16
    assert max(window.positions.max() for window in windows) == 23


def test_tissue_that_lies_apart_stays_whole() -> None:
    windows = _cut(SCATTERED)
    assert sorted(int(window.rows.min()) for window in windows) == [0, 576, 1152, 1728]
    assert all(len(window.rows) == 576 for window in windows)


def test_rows_beyond_the_table_get_a_window_of_their_own() -> None:
    centres_um = np.concatenate([_grid(10, 10), [[8.0 * 200, 0.0]]])
    assert [len(window.rows) for window in _cut(centres_um)] == [100, 1]


def test_the_pitch_is_that_of_the_level(small_store: Store, tmp_path: Path) -> None:
    for slide in training_of(small_store, tmp_path).training.slides:
        assert level_pitch_um(slide.fine.centres_um, slide.fine.edges) == pytest.approx(8, rel=0.01)


def test_pixels_of_a_window_are_averaged_to_one_side(small_store: Store, tmp_path: Path) -> None:
    slides = training_of(small_store, tmp_path).training.slides
    item = fine_windows(slides, window=50, positions=64)[-1]
    assert isinstance(item, WindowRows)
    assert item.slide is slides[-1]
    pixels = window_pixels(item, side=28, device=torch.device("cpu"), view=1)
    stored = np.rot90(item.slide.fine.pixels(item.rows), axes=(1, 2)).astype(np.float64) / 255
    means = stored.reshape(len(stored), 28, 4, 28, 4, 3).mean(axis=(2, 4))
    np.testing.assert_allclose(pixels.permute(0, 2, 3, 1).numpy(), means, atol=1e-5)

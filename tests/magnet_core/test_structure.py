import numpy as np
import pytest
from skimage.metrics import structural_similarity

from magnet_core.structure import map_similarity, median_pitch_um


def grid(side: int, pitch_um: float = 8.0) -> np.ndarray:
    return (
        np.stack(np.meshgrid(np.arange(side), np.arange(side), indexing="ij"), axis=-1).reshape(-1, 2) * pitch_um + 500
    )


def test_on_a_whole_square_it_is_scikit_images_own() -> None:
    rng = np.random.default_rng(0)
    truth, prediction = rng.random((2, 20, 20))
    order = rng.permutation(400)
    found = map_similarity(prediction.ravel()[order], truth.ravel()[order], grid(20)[order], pitch_um=8.0)
    assert found == pytest.approx(structural_similarity(truth, prediction, data_range=np.ptp(truth)))


def test_what_was_not_measured_is_left_out() -> None:
    rng = np.random.default_rng(1)
    truth = rng.random(400)
    truth[:20] = np.nan  # the first row of the square: the windows below it are whole
    prediction = np.where(np.isnan(truth), 99.0, truth)
    assert map_similarity(prediction, truth, grid(20), pitch_um=8.0) == pytest.approx(1)


def test_a_blurred_map_is_less_alike_and_a_flat_one_has_no_structure() -> None:
    rng = np.random.default_rng(2)
    truth = rng.random(400)
    assert map_similarity(np.full(400, truth.mean()), truth, grid(20), pitch_um=8.0) < 0.1
    assert np.isnan(map_similarity(truth, np.ones(400), grid(20), pitch_um=8.0))
    assert np.isnan(map_similarity(truth[:4], truth[:4], grid(2), pitch_um=8.0))  # not even a window of 3 × 3 is whole


def test_a_small_section_is_compared_in_smaller_windows() -> None:
    truth, prediction = np.random.default_rng(3).random((2, 6, 6))
    literal = structural_similarity(truth, prediction, win_size=5, data_range=np.ptp(truth), full=True)[1]
    found = map_similarity(prediction.ravel(), truth.ravel(), grid(6), pitch_um=8.0)
    assert found == pytest.approx(literal[2:-2, 2:-2].mean())


def test_the_pitch_is_that_of_touching_bins() -> None:
    centres = grid(6, 16.0)
    distances = np.linalg.norm(centres[:, None] - centres, axis=2) + np.where(np.eye(36), 1e9, 0)
    assert median_pitch_um(centres, np.argsort(distances, axis=1)[:, :8]) == 16.0

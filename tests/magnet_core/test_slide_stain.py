import numpy as np
import pytest

from magnet_core.slides.stain import MEAN, SD, optical_density, table_of


def stained(mean: tuple[float, float, float], sd: tuple[float, float, float], *, seed: int = 0) -> np.ndarray:
    """Pixels (T, 3) of a tissue of these densities: much that is pale, few that are dark, as nuclei are."""
    drawn = np.random.default_rng(seed).gamma(1.2, size=(4_000, 3))
    density = np.array(mean) + sd * (drawn - drawn.mean(axis=0)) / drawn.std(axis=0)
    values: np.ndarray = np.rint(256 * np.exp(-density) - 1).clip(0, 255).astype(np.uint8)
    return values


def literal(values: np.ndarray) -> np.ndarray:
    """The statistics of the reference given to each colour, pixel by pixel; white given to white."""
    density = -np.log((values.astype(np.float64) + 1) / 256)
    mean, sd = density.mean(axis=0), density.std(axis=0)
    matched = np.empty_like(density)
    for pixel, colour in np.ndindex(*density.shape):
        x = density[pixel, colour]
        spreads = min(1.0, 0.75 * MEAN[colour] / SD[colour], 0.75 * mean[colour] / sd[colour])
        pale = mean[colour] - spreads * sd[colour]
        if x >= pale:
            matched[pixel, colour] = (x - mean[colour]) / sd[colour] * SD[colour] + MEAN[colour]
        else:
            matched[pixel, colour] = x / pale * (MEAN[colour] - spreads * SD[colour])
    result: np.ndarray = np.rint(256 * np.exp(-matched.clip(0)) - 1).clip(0, 255)
    return result


@pytest.mark.parametrize("mean", [(0.35, 0.70, 0.30), (0.40, 0.55, 0.60)])
def test_tissue_of_any_stain_gets_the_statistics_of_the_reference(mean: tuple[float, float, float]) -> None:
    pixels = stained(mean, (0.38, 0.30, 0.25))
    table = table_of(pixels)
    matched = np.stack([table[colour][pixels[:, colour]] for colour in range(3)], axis=1)
    np.testing.assert_array_equal(matched, literal(pixels))
    density = optical_density(matched)
    np.testing.assert_allclose(density.mean(axis=0), MEAN, atol=0.03)
    np.testing.assert_allclose(density.std(axis=0), SD, atol=0.03)
    assert (table[:, 255] == 255).all()  # the glass


def test_what_differs_between_two_stains_of_one_tissue_is_gone() -> None:
    one = stained((0.35, 0.70, 0.30), (0.38, 0.30, 0.25), seed=1)
    other = stained((0.50, 0.55, 0.40), (0.45, 0.25, 0.30), seed=1)
    matched = [np.stack([table_of(each)[c][each[:, c]] for c in range(3)], axis=1).astype(int) for each in (one, other)]
    assert np.abs(one.astype(int) - other).mean() > 15
    assert np.abs(matched[0] - matched[1]).mean() < 1.5


def test_a_table_keeps_the_order_of_light_and_dark_and_takes_a_slide_of_one_colour() -> None:
    for pixels in (stained((0.35, 0.70, 0.30), (0.38, 0.30, 0.25)), np.full((50, 3), 180, np.uint8)):
        table = table_of(pixels)
        assert table.shape == (3, 256)
        assert table.dtype == np.uint8
        assert (np.diff(table.astype(int), axis=1) >= 0).all()

import math

import numpy as np
import pytest

from train.data.lattice import lattice_of
from train.report.viewer.raster import outline, raster_of, turned_back


def lattice(angle: float, rows: int = 6, columns: int = 9) -> tuple[list[str], np.ndarray]:
    """Barcodes and centres of bins of 8 µm, turned clockwise by an angle."""
    row, column = np.divmod(np.arange(rows * columns), columns)
    barcodes = [f"s_008um_{r:05d}_{c:05d}-1" for r, c in zip(row, column, strict=True)]
    return barcodes, 300 + turned_back(8.0 * np.column_stack([column, row]), -angle)


@pytest.mark.parametrize("degrees", [0.0, 0.4, -7.0])
def test_a_turned_lattice_is_a_cell_a_bin(degrees: float) -> None:
    angle = math.radians(degrees)
    barcodes, centres = lattice(angle)
    raster = raster_of(centres, 8, lattice_of(barcodes, centres))
    np.testing.assert_array_equal(raster.rows, np.arange(54).reshape(6, 9))
    assert raster.angle == pytest.approx(angle, abs=1e-9)
    upright = turned_back(centres, raster.angle)
    assert (raster.left_um, raster.top_um) == pytest.approx(tuple(upright.min(axis=0) - 4))
    assert (raster.width_um, raster.height_um) == pytest.approx((72, 48))


def test_a_slide_turned_by_a_quarter_stays_as_it_lies_in_the_image() -> None:
    barcodes, centres = lattice(math.pi / 2)
    raster = raster_of(centres, 8, lattice_of(barcodes, centres))
    assert raster.angle == pytest.approx(0, abs=1e-9)
    np.testing.assert_array_equal(raster.rows, np.rot90(np.arange(54).reshape(6, 9), -1))


def test_spots_on_no_lattice_are_squares_about_their_centres() -> None:
    centres = np.array([[100.0, 100.0], [150.0, 187.0], [200.0, 100.0]])
    raster = raster_of(centres, 56, None)
    y, x = np.nonzero(raster.rows >= 0)
    places = np.column_stack([raster.left_um + (x + 0.5) * raster.step_um, raster.top_um + (y + 0.5) * raster.step_um])
    assert np.abs(places - centres[raster.rows[y, x]]).max() <= 28
    assert np.unique(raster.rows[y, x], return_counts=True)[1].tolist() == [16, 16, 16]


def test_the_outline_goes_around_bins_and_holes() -> None:
    barcodes, centres = lattice(0.0, rows=3, columns=3)
    kept = np.arange(9) != 4
    whole = raster_of(centres, 8, None)
    holed = raster_of(centres[kept], 8, None)
    square = {(0, 0, 3, 0), (0, 3, 3, 3), (0, 0, 0, 3), (3, 0, 3, 3)}
    assert set(map(tuple, outline(whole).tolist())) == square
    hole = {(1, 1, 2, 1), (1, 2, 2, 2), (1, 1, 1, 2), (2, 1, 2, 2)}
    assert set(map(tuple, outline(holed).tolist())) == square | hole

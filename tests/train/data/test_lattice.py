import numpy as np

from train.data.lattice import lattice_of

CELLS = np.array([[4, 2], [4, 3], [5, 2], [7, 6]])


def barcodes() -> list[str]:
    return [f"s_008um_{row:05d}_{column:05d}-1" for row, column in CELLS]


def test_a_lattice_that_is_turned_and_mirrored_is_found() -> None:
    to_um = np.array([[-7.9, 0.3], [0.3, 7.9]])
    centres_um = CELLS[:, ::-1] @ to_um.T + [300, 40]
    lattice = lattice_of(barcodes(), centres_um)
    assert lattice is not None
    np.testing.assert_array_equal(lattice.cells, CELLS - [4, 2])
    assert lattice.shape == (4, 5)
    np.testing.assert_allclose(lattice.to_um[:, :2], to_um)
    np.testing.assert_allclose(lattice.to_um[:, 2], centres_um[0])
    drawn = lattice.raster(np.arange(4.0))
    assert drawn[3, 4] == 3
    assert np.isnan(drawn[1, 1])
    np.testing.assert_allclose(lattice.corners_um()[0], centres_um[0] - to_um @ [0.5, 0.5])


def test_barcodes_or_places_that_tell_none_give_none() -> None:
    centres_um = CELLS[:, ::-1] * 8.0
    assert lattice_of(["ACGT-1"] * 4, centres_um) is None
    assert lattice_of(barcodes(), centres_um[::-1]) is None
    assert lattice_of(barcodes()[:1] * 4, centres_um) is None
    assert lattice_of(barcodes()[:2], centres_um[:2]) is None  # one row of bins does not tell where the next would be

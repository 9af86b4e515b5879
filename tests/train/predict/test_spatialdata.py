import sys
from pathlib import Path

import numpy as np
import pytest

from cache.store import Store
from magnet_core.errors import MissingExtraError
from tests.train.predict.test_h5ad import prediction_of
from train.predict.h5ad import as_anndata
from train.predict.spatialdata import write_spatialdata


@pytest.mark.filterwarnings("ignore")  # third-party warnings while other packages load and write
@pytest.mark.interop
def test_bins_are_squares_that_the_table_annotates(small_store: Store, tmp_path: Path) -> None:
    spatialdata = pytest.importorskip("spatialdata")
    prediction = prediction_of(small_store, tmp_path, 8)
    path = tmp_path / "S1.zarr"
    for _ in range(2):  # the second time, in the place of the first
        write_spatialdata(as_anndata(prediction), path)
    assert [found.name for found in tmp_path.iterdir()] == ["S1.zarr"]
    read = spatialdata.read_zarr(path)
    assert read.coordinate_systems == ["S1"]
    squares, table = read.shapes["S1_bins"], read.tables["table"]
    side_px = 8 / prediction.header["mpp"]
    np.testing.assert_allclose(squares.area, side_px**2)
    np.testing.assert_allclose(squares.centroid.x * prediction.header["mpp"], prediction.slide.fine.centres_um[:, 0])
    np.testing.assert_allclose(squares.centroid.y * prediction.header["mpp"], prediction.slide.fine.centres_um[:, 1])
    np.testing.assert_array_equal(table.X, prediction.values)
    joined = spatialdata.match_element_to_table(read, "S1_bins", "table")[1]
    np.testing.assert_array_equal(joined.obs_names, squares.index)


def test_without_the_extra_the_error_names_it(
    small_store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "spatialdata", None)
    with pytest.raises(MissingExtraError, match=r"magnet-hd\[interop\]"):
        write_spatialdata(as_anndata(prediction_of(small_store, tmp_path, 8)), tmp_path / "S1.zarr")

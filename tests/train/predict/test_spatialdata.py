import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cache.store import Store
from magnet_core.errors import MissingExtraError
from tests.train.predict.setting import block, prediction_at
from tests.train.predict.test_h5ad import prediction_of
from train.predict.prediction import SlidePrediction
from train.predict.spatialdata import as_spatialdata, write_spatialdata

Written = tuple[SlidePrediction, Any]
in_other_tools = pytest.mark.filterwarnings("ignore")  # third-party warnings while other packages load and write


def read(prediction: SlidePrediction, path: Path) -> Any:
    spatialdata = pytest.importorskip("spatialdata")
    write_spatialdata(prediction, path)
    return spatialdata.read_zarr(path)


@pytest.fixture(scope="module")
def written(small_store: Store, tmp_path_factory: pytest.TempPathFactory) -> Written:
    """A prediction of bins of 8 µm, and what is read back of it."""
    folder = tmp_path_factory.mktemp("spatialdata")
    prediction = prediction_of(small_store, folder, 8)
    return prediction, read(prediction, folder / "S1.zarr")


@in_other_tools
@pytest.mark.interop
@pytest.mark.parametrize("um", [8, 16])
def test_each_element_is_the_one_that_the_reader_of_visium_hd_makes(
    small_store: Store, written: Written, tmp_path: Path, um: int
) -> None:
    readers = pytest.importorskip("spatialdata_io")
    from spatialdata import get_extent
    from spatialdata.models import get_table_keys
    from spatialdata.transformations import get_transformation

    name = f"square_{um:03d}um"
    ours = written[1] if um == 8 else as_spatialdata(prediction_of(small_store, tmp_path, um))
    outs = small_store.root.parent / "data/S1/outs"
    given = {"dataset_id": "S1", "bin_size": um, "load_segmentations_only": False}
    theirs = readers.visium_hd(outs, **given)
    by_labels = readers.visium_hd(outs, **given, annotate_table_by_labels=True)

    assert set(ours.coordinate_systems) == set(theirs.coordinate_systems)
    assert set(ours.images) == set(theirs.images) == {"S1_hires_image", "S1_lowres_image"}
    assert set(ours.shapes) == set(theirs.shapes) == {f"S1_{name}"}
    assert set(ours.labels) == set(by_labels.labels) == {f"S1_{name}_labels"}
    assert set(ours.tables) - {f"{name}_labels"} == set(theirs.tables) == {name}

    table, their_table = ours.tables[name], theirs.tables[name]
    assert get_table_keys(table) == get_table_keys(their_table)
    assert set(their_table.obs.columns) <= set(table.obs.columns)
    assert table.obs["location_id"].tolist() == list(range(len(table)))
    their_table = their_table[table.obs_names]  # a sample of the slide is predicted
    np.testing.assert_array_equal(table.obs[["array_row", "array_col"]], their_table.obs[["array_row", "array_col"]])
    np.testing.assert_allclose(table.obsm["spatial"], their_table.obsm["spatial"])

    squares, their_squares = ours.shapes[f"S1_{name}"], theirs.shapes[f"S1_{name}"]
    assert squares.index.name == their_squares.index.name == "location_id"
    joined = their_squares.loc[their_table.obs["location_id"]]
    np.testing.assert_allclose(squares.bounds, joined.bounds)
    np.testing.assert_allclose(squares.area, joined.area)

    for element in ("S1_hires_image", "S1_lowres_image"):  # whose sizes in pixels need not be the same
        assert ours[element].dims == theirs[element].dims
        assert ours[element].dtype == theirs[element].dtype
        assert (
            get_transformation(ours[element], get_all=True).keys()
            == get_transformation(theirs[element], get_all=True).keys()
        )
        extent, their_extent = (get_extent(each[element], coordinate_system="S1") for each in (ours, theirs))
        for axis in "xy":
            np.testing.assert_allclose(extent[axis], their_extent[axis], atol=8)


@in_other_tools
@pytest.mark.interop
def test_elements_lie_on_each_other_in_every_coordinate_system(written: Written) -> None:
    from spatialdata import get_extent, transform

    prediction, read_back = written
    for system in read_back.coordinate_systems:
        image = "S1_lowres_image" if system.endswith("lowres") else "S1_hires_image"
        around = get_extent(read_back[image], coordinate_system=system)
        squares = transform(read_back["S1_square_008um"], to_coordinate_system=system)
        um_per_unit = 8 / np.sqrt(squares.area.mean())
        centroids = np.stack([squares.centroid.x, squares.centroid.y], axis=1)
        np.testing.assert_allclose(centroids * um_per_unit, prediction.slide.fine.centres_um, rtol=1e-3)
        assert around["x"][0] <= centroids[:, 0].min() <= centroids[:, 0].max() <= around["x"][1]
        assert around["y"][0] <= centroids[:, 1].min() <= centroids[:, 1].max() <= around["y"][1]


@in_other_tools
@pytest.mark.interop
def test_a_label_stands_where_its_bin_is_and_has_its_row_in_a_table(written: Written) -> None:
    from spatialdata import get_values, match_element_to_table
    from spatialdata.transformations import get_transformation

    prediction, read_back = written
    labels, table = read_back["S1_square_008um_labels"], read_back.tables["square_008um_labels"]
    numbers = labels.to_numpy()
    rows, columns = np.nonzero(numbers)
    assert sorted(numbers[rows, columns]) == list(range(1, len(prediction.values) + 1))
    assert prediction.picture is not None
    for system, scale in (("S1", 1.0), ("S1_downscaled_hires", prediction.mpp / prediction.picture.um_per_px)):
        to_system = get_transformation(labels, system).to_affine_matrix(("x", "y"), ("x", "y"))
        middles = np.stack([columns + 0.5, rows + 0.5, np.ones(len(rows))], axis=1) @ to_system[:2].T
        np.testing.assert_allclose(middles, prediction.centres_px[numbers[rows, columns] - 1] * scale, atol=0.5)
    np.testing.assert_array_equal(table.X, prediction.values)
    joined = match_element_to_table(read_back, "S1_square_008um_labels", "square_008um_labels")[1]
    np.testing.assert_array_equal(joined.obs_names, prediction.slide.fine.barcodes())
    gene = prediction.genes.names[3]
    coloured = get_values(gene, sdata=read_back, element_name="S1_square_008um", table_name="square_008um")
    np.testing.assert_array_equal(coloured[gene], prediction.values[:, 3])


@in_other_tools
@pytest.mark.interop
def test_spots_are_circles_as_the_reader_of_visium_makes_them(small_store: Store, tmp_path: Path) -> None:
    pytest.importorskip("spatialdata")
    from spatialdata.models import get_table_keys

    prediction = prediction_of(small_store, tmp_path, 55)
    read_back = read(prediction, tmp_path / "S1.zarr")
    assert list(read_back.shapes) == ["S1"]
    assert list(read_back.labels) == []
    assert get_table_keys(read_back.tables["table"]) == ("S1", "region", "spot_id")
    np.testing.assert_allclose(read_back["S1"].radius, prediction.side_um / prediction.mpp / 2)
    np.testing.assert_allclose(read_back["S1"].geometry.x, prediction.centres_px[:, 0])
    np.testing.assert_array_equal(read_back.tables["table"].X, prediction.values)


@in_other_tools
@pytest.mark.interop
def test_a_slide_without_a_picture_is_written_in_the_place_of_what_was_there(
    small_store: Store, tmp_path: Path
) -> None:
    (tmp_path / "S1.zarr/images/S1_hires_image").mkdir(parents=True)
    read_back = read(replace(prediction_of(small_store, tmp_path, 8), picture=None), tmp_path / "S1.zarr")
    assert [found.name for found in tmp_path.iterdir()] == ["S1.zarr"]
    assert read_back.coordinate_systems == ["S1"]
    assert list(read_back.images) == []
    assert list(read_back.shapes) == ["S1_square_008um"]
    assert not (tmp_path / "S1.zarr/images/S1_hires_image").exists()


def test_without_the_extra_the_error_names_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "spatialdata", None)
    with pytest.raises(MissingExtraError, match=r"magnet-hd\[interop\]"):
        write_spatialdata(prediction_at(block(2, 2), np.ones((4, 1))), tmp_path / "S1.zarr")

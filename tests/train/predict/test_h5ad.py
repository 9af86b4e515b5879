import json
from dataclasses import replace
from pathlib import Path

import anndata
import numpy as np
import pytest

from cache.store import Store
from magnet_core.records import Genes
from tests.train.setting import NUM_GENES, config, parts
from train.learning.trained_run import TrainedRun
from train.predict.h5ad import as_anndata, write_h5ad
from train.predict.prediction import SlidePrediction
from train.settings.fit import FitConfig


def prediction_of(store: Store, tmp_path: Path, target: int) -> SlidePrediction:
    settings = config(store, tmp_path, f"data.target={target}", "encoder.mode=frozen", "data.normalise.scale=500")
    slide, predictor = parts(store, settings)
    genes = Genes(slide.genes.ids[:NUM_GENES], slide.genes.names[:NUM_GENES])
    values = np.random.default_rng(0).normal(size=(len(slide.fine), NUM_GENES)).astype(np.float32)
    run = TrainedRun(settings, genes, predictor)
    header, picture = store.geometry("S1").header, store.picture("S1")
    return SlidePrediction(values, genes, slide, header, run, {"run": "runs/one"}, picture=picture)


@pytest.mark.parametrize(("target", "side_um"), [(8, 8), (16, 16), (55, 56)])
def test_scale_factors_and_lattice_are_in_the_units_of_the_image(
    small_store: Store, tmp_path: Path, target: int, side_um: float
) -> None:
    prediction = prediction_of(small_store, tmp_path, target)
    table = as_anndata(prediction)
    factors = table.uns["spatial"]["S1"]["scalefactors"]
    assert factors["spot_diameter_fullres"] == side_um / prediction.header["mpp"]
    assert (table.obs["in_tissue"] == 1).all()
    # bins are turned against the image, so that lattice and pixels agree in lengths alone
    cells = table.obs[["array_row", "array_col"]].to_numpy()
    steps_px = np.linalg.norm(np.diff(table.obsm["spatial"], axis=0), axis=1)
    steps = np.linalg.norm(np.diff(cells, axis=0), axis=1)
    np.testing.assert_allclose(steps_px, steps * factors["spot_diameter_fullres"], rtol=0.01)


def test_pictures_of_the_tissue_lie_inside_with_their_scales(small_store: Store, tmp_path: Path) -> None:
    prediction = prediction_of(small_store, tmp_path, 8)
    picture = prediction.picture
    assert picture is not None
    write_h5ad(as_anndata(prediction), tmp_path / "S1.h5ad")
    entry = anndata.read_h5ad(tmp_path / "S1.h5ad").uns["spatial"]["S1"]
    assert entry["images"].keys() == {"hires", "lowres"}
    np.testing.assert_array_equal(entry["images"]["hires"], picture.pixels)
    width_px = picture.pixels.shape[1] * picture.um_per_px / prediction.mpp
    for name, image in entry["images"].items():
        assert entry["scalefactors"][f"tissue_{name}_scalef"] == pytest.approx(image.shape[1] / width_px)
    assert max(entry["images"]["lowres"].shape) == 600
    np.testing.assert_allclose(entry["images"]["lowres"].mean(axis=(0, 1)), picture.pixels.mean(axis=(0, 1)), atol=1)


def test_without_a_picture_there_is_no_image_and_a_scale_of_one(small_store: Store, tmp_path: Path) -> None:
    entry = as_anndata(replace(prediction_of(small_store, tmp_path, 8), picture=None)).uns["spatial"]["S1"]
    assert entry["images"] == {}
    assert entry["scalefactors"].keys() == {"spot_diameter_fullres", "tissue_hires_scalef"}
    assert entry["scalefactors"]["tissue_hires_scalef"] == 1


def test_the_spread_of_an_ensemble_is_a_layer(small_store: Store, tmp_path: Path) -> None:
    prediction = prediction_of(small_store, tmp_path, 8)
    assert "deviation" not in as_anndata(prediction).layers
    spread = np.abs(prediction.values)
    np.testing.assert_array_equal(as_anndata(replace(prediction, deviation=spread)).layers["deviation"], spread)


@pytest.mark.filterwarnings("ignore")  # third-party warnings while other packages load and draw
@pytest.mark.interop
@pytest.mark.parametrize("target", [8, 55])
def test_squidpy_draws_a_gene_over_the_tissue_with_no_other_argument(
    small_store: Store, tmp_path: Path, target: int
) -> None:
    reason = "squidpy 1.8 wants an older imagecodecs than the lock has: install it into an environment of its own"
    squidpy = pytest.importorskip("squidpy", minversion="1.8", reason=reason)
    from matplotlib import pyplot

    prediction = prediction_of(small_store, tmp_path, target)
    write_h5ad(as_anndata(prediction), tmp_path / "S1.h5ad")
    table = anndata.read_h5ad(tmp_path / "S1.h5ad")
    squidpy.pl.spatial_scatter(table, color=prediction.genes.names[0])
    axes = pyplot.gcf().axes[0]
    (image,), (circles,) = axes.images, axes.collections
    assert prediction.picture is not None
    np.testing.assert_array_equal(image.get_array(), prediction.picture.pixels)
    np.testing.assert_array_equal(circles.get_array(), prediction.values[:, 0])
    boxes = [path.get_extents() for path in circles.get_paths()]
    in_picture = prediction.slide.fine.centres_um / prediction.picture.um_per_px
    np.testing.assert_allclose([(box.xmin + box.xmax) / 2 for box in boxes], in_picture[:, 0])
    np.testing.assert_allclose([box.width for box in boxes], prediction.side_um / prediction.picture.um_per_px)
    pyplot.close("all")


def test_values_are_not_copied_before_they_are_written(small_store: Store, tmp_path: Path) -> None:
    prediction = prediction_of(small_store, tmp_path, 8)
    assert np.shares_memory(as_anndata(prediction).X, prediction.values)


def test_barcodes_that_name_no_lattice_give_no_array_columns(
    small_store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prediction = prediction_of(small_store, tmp_path, 55)
    barcodes = np.array([f"ACGT{row}-1" for row in range(len(prediction.values))])
    monkeypatch.setattr(prediction.slide.fine, "barcodes", lambda: barcodes)
    assert list(as_anndata(prediction).obs) == ["in_tissue"]


def test_provenance_and_values_survive_the_file(small_store: Store, tmp_path: Path) -> None:
    prediction = prediction_of(small_store, tmp_path, 8)
    path = tmp_path / "deep" / "S1.h5ad"
    write_h5ad(as_anndata(prediction), path)
    assert [found.name for found in path.parent.iterdir()] == ["S1.h5ad"]
    table = anndata.read_h5ad(path)
    np.testing.assert_array_equal(table.X, prediction.values)
    assert table.X.dtype == np.float32
    assert table.obs_names.is_unique
    assert table.var_names.is_unique
    known = table.uns["magnet_hd"]
    assert known["run"] == "runs/one"
    assert known["normalisation"] == {"library": "panel", "scale": 500.0, "log": True}
    assert FitConfig.build(json.loads(known["config"]), where="uns") == prediction.run.config
    assert list(known["panel"]) == prediction.run.panel.ids.tolist()
    assert known["geometry_digest"] == small_store.geometry("S1").header["digest"]
    assert {"python", "torch", "numpy"} <= known["versions"].keys()


def test_a_file_that_cannot_be_finished_leaves_the_old_one(
    small_store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = as_anndata(prediction_of(small_store, tmp_path, 8))
    path = tmp_path / "S1.h5ad"
    write_h5ad(table, path)
    before = path.read_bytes()

    def stop(self: Path, target: Path) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Path, "replace", stop)
    with pytest.raises(KeyboardInterrupt):
        write_h5ad(table[:, :3].copy(), path)
    assert path.read_bytes() == before

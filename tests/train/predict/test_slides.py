import json
import shutil
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import anndata
import numpy as np
import polars as pl
import pytest
from typer.testing import CliRunner, Result

from cache.fingerprint import digest
from cache.store import Store
from extract.config import EmbeddingConfig, GeometryConfig, RunConfig
from extract.pipeline import run as extract
from magnet_core.backbones import architecture, encoder
from magnet_core.errors import MagnetError
from magnet_core.levels import TARGETS
from magnet_core.model import MagNet
from magnet_core.records import Genes
from tests.train.conftest import BACKBONE
from tests.train.setting import NUM_GENES, config, edited, parts
from train.cli import app
from train.data.slide import Slide, open_slide_data
from train.learning.trained_run import TrainedRun, load_run, save_run
from train.model.predictor import Predictor
from train.model.whole_slide import predict_slide
from train.pipeline import fit
from train.places import trained_run
from train.predict.matching_slide import open_slide_for
from train.predict.slides import sampling_notice

Fitted = Callable[[int], Path]


@pytest.fixture(scope="module")
def fitted(small_store: Store, tmp_path_factory: pytest.TempPathFactory) -> Fitted:
    """Folders of frozen runs by target, each fitted once."""
    runs, folders = tmp_path_factory.mktemp("fitted"), dict[int, Path]()

    def folder(target: int) -> Path:
        if target not in folders:
            settings = (f"data.target={target}", "encoder.mode=frozen", "baselines=false", "optim.epochs=1")
            folders[target] = fit(config(small_store, runs, *settings)).folder
        return folders[target]

    return folder


def predict(folder: Path, *options: object) -> Result:
    return CliRunner().invoke(app, ["predict", str(folder), *map(str, options)], catch_exceptions=False)


def untrained(store: Store, tmp_path: Path, *settings: str) -> TrainedRun:
    """A run on the first genes of S1."""
    slide, predictor = parts(store, config(store, tmp_path, *settings))
    panel = Genes(slide.genes.ids[:NUM_GENES], slide.genes.names[:NUM_GENES])
    return TrainedRun(config(store, tmp_path, *settings), panel, predictor)


def digest_of(store: Store, slide_id: str = "S1") -> str:
    (features,) = store.feature_files(slide_id)
    return features.settings_digest


@pytest.mark.parametrize("target", [8, 55])
def test_the_file_holds_what_the_run_predicts_in_the_stores_order(
    small_store: Store, tmp_path: Path, fitted: Fitted, target: int
) -> None:
    out = tmp_path / "new" / "S2.h5ad"
    shown = predict(fitted(target), "--slide", "S2", "--out", out, "--measured")
    assert shown.exit_code == 0, shown.output
    assert f"-> {out}" in shown.output
    assert not list(out.parent.glob("*.partial"))

    run = load_run(fitted(target))
    slide = open_slide_data(small_store, "S2", TARGETS[target], run.config.data)
    mpp = small_store.geometry("S2").header["mpp"]
    table = anndata.read_h5ad(out)
    np.testing.assert_array_equal(table.X, predict_slide(run.predictor, slide))
    np.testing.assert_array_equal(table.obs_names, slide.fine.barcodes())
    np.testing.assert_array_equal(table.var_names, run.panel.names)
    np.testing.assert_array_equal(table.var["gene_ids"], run.panel.ids)
    np.testing.assert_array_equal(
        table.layers["measured"], slide.labels(run.panel, run.config.data.normalise)[slide.fine.name]
    )
    np.testing.assert_array_equal(table.obsm["spatial_um"], slide.fine.centres_um)
    np.testing.assert_allclose(table.obsm["spatial"] * mpp, slide.fine.centres_um)


def test_a_slide_that_was_learnt_from_is_said_to_be_under_whatever_name(
    fitted: Fitted, small_store: Store, tmp_path: Path
) -> None:
    run = fitted(8)
    sides = json.loads((trained_run(run) / "cell.json").read_text())["fold"]
    learnt, tested = sides["train"][0], sides["test"][0]
    told = predict(run, "--slide", learnt, "--out", tmp_path / "a.h5ad").output
    assert f"{learnt}: was learnt from (by {trained_run(run).name})" in told
    assert "learnt from" not in predict(run, "--slide", tested, "--out", tmp_path / "b.h5ad").output
    data = small_store.root.parent / "data" / learnt
    image = shutil.copy(data / f"{learnt}_tissue_image.btf", tmp_path / "other name.btf")
    told = predict(run, "--image", image, "--like", data / "outs", "--out", tmp_path / "c.h5ad").output
    assert "other-name: was learnt from" in told


def test_all_slides_go_into_the_runs_folder_and_what_is_there_is_not_replaced_unasked(
    fitted: Fitted, small_store: Store, tmp_path: Path
) -> None:
    folder = shutil.copytree(fitted(8), tmp_path / "run")
    shown = predict(folder, "--slide", "all")
    assert shown.exit_code == 0, shown.output
    paths = [folder / "predictions" / f"{slide_id}.h5ad" for slide_id in small_store.slide_ids()]
    assert [path.is_file() for path in paths] == [True] * 3
    written = paths[0].read_bytes()
    gene = load_run(folder).panel.names[3]
    with pytest.raises(MagnetError, match=r"S1.h5ad: expected no such file yet, found it is there; pass --overwrite"):
        predict(folder, "--slide", "S1", "--genes", gene)
    assert paths[0].read_bytes() == written
    assert predict(folder, "--slide", "S1", "--genes", gene, "--overwrite").exit_code == 0
    assert list(anndata.read_h5ad(paths[0]).var_names) == [gene]


def test_the_same_command_again_makes_what_is_missing_and_leaves_what_is_there(fitted: Fitted, tmp_path: Path) -> None:
    folder = shutil.copytree(fitted(8), tmp_path / "run")
    of_first, of_second = (folder / "predictions" / f"{name}.h5ad" for name in ("S1", "S2"))
    assert predict(folder, "--slide", "S1").exit_code == 0
    written = of_first.read_bytes()
    shown = predict(folder, "--slide", "S1", "--slide", "S2")
    assert shown.exit_code == 0, shown.output
    assert "S1: S1.h5ad there already, and left so (--overwrite makes all anew)" in shown.output
    assert of_second.is_file()
    assert "S2.h5ad there" not in shown.output
    assert predict(folder, "--slide", "S1", "--format", "h5ad,parquet").exit_code == 0
    assert of_first.read_bytes() == written
    assert of_first.with_suffix(".parquet").is_file()


def test_all_formats_of_one_prediction_lie_beside_each_other(fitted: Fitted, tmp_path: Path) -> None:
    names = load_run(fitted(8)).panel.names
    formats = "parquet,h5ad,ome-tiff,geojson"
    options = ["--slide", "S1", "--format", formats, "--draw", names[4], "--above", "80%"]
    shown = predict(fitted(8), *options, "--out", tmp_path / "v1.5.parquet")
    assert shown.exit_code == 0, shown.output
    suffixes = [".parquet", ".h5ad", ".ome.tif", ".geojson"]
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(f"v1.5{suffix}" for suffix in suffixes)
    assert ", ".join(str(tmp_path / f"v1.5{suffix}") for suffix in suffixes) in shown.output
    assert "sq.pl.spatial_scatter" in shown.output
    table, annotated = pl.read_parquet(tmp_path / "v1.5.parquet"), anndata.read_h5ad(tmp_path / "v1.5.h5ad")
    np.testing.assert_array_equal(table[annotated.var_names.tolist()], annotated.X)
    regions = json.loads((tmp_path / "v1.5.geojson").read_text())["features"]
    assert {region["properties"]["classification"]["name"] for region in regions} == {names[4]}
    assert sum(region["properties"]["measurements"]["Rows"] for region in regions) == len(annotated) // 5
    with pytest.raises(MagnetError, match=r"v1.5.h5ad: expected no such file yet"):
        predict(fitted(8), "--slide", "S1", "--out", tmp_path / "v1.5.h5ad")


def test_chosen_genes_are_columns_of_the_whole_in_the_order_asked(fitted: Fitted, tmp_path: Path) -> None:
    panel = load_run(fitted(8)).panel
    asked = f"{panel.names[7]}, {panel.ids[2]},{panel.names[7]}"
    predict(fitted(8), "--slide", "S1", "--out", tmp_path / "all.h5ad")
    predict(fitted(8), "--slide", "S1", "--out", tmp_path / "two.h5ad", "--genes", asked)
    whole, chosen = (anndata.read_h5ad(tmp_path / name) for name in ("all.h5ad", "two.h5ad"))
    np.testing.assert_array_equal(chosen.var_names, panel.names[[7, 2]])
    np.testing.assert_array_equal(chosen.X, whole.X[:, [7, 2]])
    predict(fitted(8), "--slide", "S1", "--out", tmp_path / "turned.h5ad", "--genes", ",".join(panel.names[::-1]))
    np.testing.assert_array_equal(anndata.read_h5ad(tmp_path / "turned.h5ad").to_df()[panel.names], whole.to_df())
    assert list(chosen.uns["magnet_hd"]["panel"]) == panel.ids.tolist()  # whose library the values are normalised to


def test_a_slide_of_another_store_without_counts_is_predicted(
    small_store: Store, tmp_path: Path, fitted: Fitted, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "scanpy", None)  # an import of it would fail
    image = small_store.root.parent / "data/S1/S1_tissue_image.btf"
    sheet = tmp_path / "samples.csv"
    sheet.write_text(f"slide_id,image,mpp\nnew,{image},0.25\n")
    extraction = RunConfig(
        samples=sheet,
        store=tmp_path / "store",
        geometry=GeometryConfig(targets=(8,), bins=100, window=6),
        embedding=EmbeddingConfig(backbone=BACKBONE, weights="random", token_grid=2),
    )
    assert extract(extraction).failed == {}
    out = tmp_path / "new.h5ad"
    shown = predict(fitted(8), "--slide", "new", "--store", extraction.store, "--out", out, "--measured")
    assert shown.exit_code == 0, shown.output
    assert "new: no counts, so no layer 'measured'" in shown.output
    assert "rows are a sample (--sampling windows)" in shown.output
    table = anndata.read_h5ad(out)
    assert np.isfinite(table.X).all()
    assert table.X.std(axis=0).max() > 0
    assert "measured" not in table.layers


def test_a_store_that_has_moved_is_named_by_option(small_store: Store, tmp_path: Path, fitted: Fitted) -> None:
    moved = shutil.copytree(trained_run(fitted(8)), tmp_path / "run")
    edited(moved / "run.json", lambda run: run["config"]["data"].update(store=str(tmp_path / "gone")))
    with pytest.raises(MagnetError, match="the store it was trained on.*gone, found none there; name the store with"):
        predict(moved, "--slide", "S1")
    assert predict(moved, "--slide", "S1", "--store", small_store.root).exit_code == 0
    predict(fitted(8), "--slide", "S1", "--out", tmp_path / "own.h5ad")
    tables = [anndata.read_h5ad(path) for path in (moved / "predictions/S1.h5ad", tmp_path / "own.h5ad")]
    np.testing.assert_array_equal(tables[0].X, tables[1].X)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--slide", "s1x"], r"slide: expected a known name, found 's1x'; did you mean S1"),
        (
            ["--slide", "S1", "--genes", "NOTAGENE"],
            r"--genes: expected genes of the run's panel of 20, found 'NOTAGENE'",
        ),
        (["--slide", "S1", "--slide", "S2", "--out", "x.h5ad"], "--out: expected one slide.*leave --out out"),
        (["--slide", "S1", "--out", "x.csv"], r"--out: expected one slide, and a name ending in .h5ad"),
        (["--slide", "S1", "--out", "x.zarr"], r"--out: expected one slide, and a name ending in .h5ad"),
        (["--slide", "S1", "--format", "spatialdata", "--out", "x.h5ad"], r"--out: expected one slide.* in .zarr"),
        (["--slide", "S1", "--format", "h5ad,csv"], r"--format: expected a known name, found 'csv'; choose one of"),
        (["--slide", "S1", "--format", ","], "--format: expected names with commas between"),
        (["--slide", "S1", "--format", "geojson"], r"--format geojson: expected genes to draw.*--draw"),
        (["--slide", "S1", "--format", "ome-tiff", "--draw", "NOTAGENE"], r"--draw: expected genes of the 20"),
        (
            ["--slide", "S1", "--draw", "NOTAGENE"],
            r"--draw: expected --format ome-tiff or geojson, found --format h5ad",
        ),
        (["--slide", "S1", "--above", "1"], "--above: expected --format geojson, found --format h5ad"),
        (["--slide", "S1", "--format", "geojson", "--genes", "SYN", "--above", "x"], "--genes: expected genes"),
        (["--slide", "S1", "--store", "nowhere"], "nowhere: expected a store"),
    ],
)
def test_wrong_options_are_one_line(fitted: Fitted, options: list[str], says: str) -> None:
    with pytest.raises(MagnetError, match=says) as caught:
        predict(fitted(8), *options)
    assert "\n" not in str(caught.value)


def test_a_folder_without_a_run_says_which_to_give(tmp_path: Path) -> None:
    with pytest.raises(MagnetError, match=r"expected a finished run with run.json, found none; give the folder"):
        predict(tmp_path, "--slide", "S1")


def test_a_slide_that_fails_is_named_and_the_others_are_predicted(
    small_store: Store, tmp_path: Path, fitted: Fitted, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse_s2(run: TrainedRun, store: Store, slide_id: str) -> Slide:
        if slide_id == "S2":
            raise MagnetError("S2", expected="features", found="none", remedy="extract it")
        return open_slide_for(run, store, slide_id)

    monkeypatch.setattr("train.predict.slides.open_slide_for", refuse_s2)
    folder = shutil.copytree(trained_run(fitted(55)), tmp_path / "run")
    shown = predict(folder, "--slide", "all")
    assert shown.exit_code == 1
    assert "failed: S2: S2: expected features, found none; extract it" in shown.output
    written = sorted(path.stem for path in (folder / "predictions").glob("*.h5ad"))
    assert written == ["S1", "S3"]


def test_features_of_other_settings_are_refused_but_for_the_views(small_store: Store, tmp_path: Path) -> None:
    run = untrained(small_store, tmp_path, "encoder.mode=frozen")
    with pytest.raises(MagnetError, match=r"expected the settings of the training store \(0123\), found \w+; extract"):
        open_slide_for(replace(run, features_settings_digest="0123"), small_store, "S1")
    settings = small_store.features("S1", BACKBONE).header["settings"]
    of_all_views = replace(run, features_settings_digest=digest({**settings, "views": 8}))
    slide = open_slide_for(of_all_views, small_store, "S1")
    assert slide.features_header["settings_digest"] == digest_of(small_store)


def test_a_run_that_knew_no_own_squares_reads_features_that_have_them(small_store: Store, tmp_path: Path) -> None:
    run = untrained(small_store, tmp_path, "encoder.mode=frozen", "data.own=false")
    settings = small_store.features("S1", BACKBONE).header["settings"]
    before = {name: value for name, value in settings.items() if name != "own"}
    assert before != settings
    slide = open_slide_for(replace(run, features_settings_digest=digest(before)), small_store, "S1")
    assert slide.fine.fine_width == slide.fine.width == run.predictor.model.fine_dim


def test_features_of_another_width_are_refused(small_store: Store, tmp_path: Path) -> None:
    run = untrained(small_store, tmp_path, "encoder.mode=frozen")
    widths = run.predictor.model.context_dims
    model = MagNet(run.config.model, fine_dim=7, context_dims=widths, num_genes=NUM_GENES)
    other = replace(run, predictor=Predictor(None, model, run.config.compute))
    with pytest.raises(MagnetError, match=r"widths the run was trained with \(bin_008um 7, region \d+, spot \d+\)"):
        open_slide_for(other, small_store, "S1")


def test_a_slide_without_features_of_the_runs_backbone_is_refused_with_the_remedy(
    small_store: Store, tmp_path: Path
) -> None:
    run = untrained(small_store, tmp_path, "encoder.mode=frozen")
    config = run.config.changed(data={"backbone": "resnet18"})
    with pytest.raises(MagnetError, match="expected features of resnet18.*run 'extract run --backbone resnet18'"):
        open_slide_for(replace(run, config=config), small_store, "S1")


def test_a_finetuned_run_is_loaded_without_drawing_weights_and_predicts_the_same(
    small_store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = replace(untrained(small_store, tmp_path), features_settings_digest=digest_of(small_store))
    save_run(tmp_path, run, extra={})

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("weights were drawn")

    monkeypatch.setattr(architecture, "draw_model", refuse)
    monkeypatch.setattr(encoder, "draw_model", refuse)
    shown = predict(tmp_path, "--slide", "S1")
    assert shown.exit_code == 0, shown.output
    assert "S1: encode  200/200 rows  100 %" in shown.output
    assert "S1: predict  200/200 rows  100 %" in shown.output
    slide = open_slide_for(run, small_store, "S1")
    table = anndata.read_h5ad(tmp_path / "predictions/S1.h5ad")
    np.testing.assert_array_equal(table.X, predict_slide(run.predictor, slide))
    assert load_run(tmp_path).features_settings_digest == digest_of(small_store)


@pytest.mark.parametrize(
    ("rows", "fine", "sampling", "sampled"),
    [
        (500, "bin_008um", "windows", True),
        (500, "bin_008um", "uniform", True),
        (500, "bin_008um", "all", False),
        (399, "bin_008um", "windows", False),
        (60, "spot", "windows", True),
        (40, "spot", "windows", False),
    ],
)
def test_a_sample_is_told_from_a_whole_slide(rows: int, fine: str, sampling: str, sampled: bool) -> None:
    class Level(list[int]):
        name = fine

    slide = cast(Slide, SimpleNamespace(slide_id="S1", fine=Level(range(rows))))
    notice = sampling_notice(slide, {"settings": {"sampling": sampling, "bins": 400, "spots": 50}})
    assert ("extract run --sampling all --slide S1" in notice) == sampled

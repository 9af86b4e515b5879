import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import tifffile

from cache.store import Store
from extract import sinks
from extract.config import EmbeddingConfig, GeometryConfig, RunConfig
from extract.pipeline import run as extract
from extract.sinks import FeatureSink
from extract.stream import TILE_PX
from magnet_core.errors import MagnetError
from magnet_core.metrics import evaluate
from magnet_core.slides import ScaledSlide
from tests.train.conftest import BACKBONE
from tests.train.predict.from_image import Setting, make_setting, predict, read, untrained
from tests.train.setting import NUM_GENES, config, edited, parts
from train.model.whole_slide import predict_slide


@pytest.fixture(scope="module")
def setting(small_store: Store, tmp_path_factory: pytest.TempPathFactory) -> Setting:
    return make_setting(small_store, tmp_path_factory.mktemp("from_image"))


@pytest.mark.parametrize(("mode", "within"), [("frozen", 0.0), ("full", 1e-5)])
def test_an_image_is_predicted_as_in_two_steps(setting: Setting, tmp_path: Path, mode: str, within: float) -> None:
    run, out = setting.runs[mode], tmp_path / "new.h5ad"
    shown = predict(run, "--image", setting.image, "--mpp", 0.25, "--out", out)
    assert shown.exit_code == 0, shown.output
    assert "new-slide: 400 bin_008um" in shown.output
    assert "features take" in shown.output
    assert "see it" in shown.output
    two_steps = predict(run, "--slide", "new-slide", "--store", setting.store, "--out", tmp_path / "two.h5ad")
    assert two_steps.exit_code == 0, two_steps.output
    table, expected = read(out), read(tmp_path / "two.h5ad")
    assert np.ptp(expected.X, axis=0).min() > 1e-2  # bins differ, so that equality says something
    np.testing.assert_allclose(table.X, expected.X, rtol=0, atol=within)
    assert table.obs.equals(expected.obs)
    assert table.var.equals(expected.var)
    np.testing.assert_array_equal(table.obsm["spatial"], expected.obsm["spatial"])
    assert table.uns["magnet_hd"]["sampling"] == "all"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["new.h5ad", "two.h5ad"]  # features are gone


def test_each_tile_is_decoded_once_and_no_pixels_are_kept(
    setting: Setting, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tiles: list[tuple[int, int]] = []
    decode = ScaledSlide.read

    def counted(slide: ScaledSlide, x: int, y: int, width: int, height: int) -> np.ndarray:
        if width == height == TILE_PX:  # not when its tissue is looked for
            tiles.append((x, y))
        return decode(slide, x, y, width, height)

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("pixels were kept")

    monkeypatch.setattr(ScaledSlide, "read", counted)
    monkeypatch.setattr(sinks.PixelSink, "__init__", refuse)
    assert (
        predict(setting.runs["full"], "--image", setting.image, "--mpp", 0.25, "--out", tmp_path / "x.h5ad").exit_code
        == 0
    )
    assert len(tiles) == len(set(tiles)) > 4


@pytest.mark.parametrize("mode", ["frozen", "full"])
def test_what_was_stopped_goes_on_and_encodes_nothing_twice(
    setting: Setting, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mode: str
) -> None:
    command = (
        setting.runs[mode],
        "--image",
        setting.image,
        "--mpp",
        0.25,
        "--out",
        tmp_path / "x.h5ad",
        "--batch-size",
        4,
    )
    encode = FeatureSink._encode
    encoded: list[int] = []

    def stopped(sink: FeatureSink, batch: np.ndarray) -> dict[str, np.ndarray]:
        if sum(encoded) > 200:
            sink.save()
            raise KeyboardInterrupt
        return counted(sink, batch)

    def counted(sink: FeatureSink, batch: np.ndarray) -> dict[str, np.ndarray]:
        encoded.append(len(batch))
        return encode(sink, batch)

    monkeypatch.setattr(FeatureSink, "_encode", stopped)
    assert predict(*command).exit_code == 130
    assert [path.name for path in tmp_path.iterdir()] == [".x.features"]
    monkeypatch.setattr(FeatureSink, "_encode", counted)
    before = sum(encoded)
    shown = predict(*command)
    assert shown.exit_code == 0
    assert "going on after what an earlier command encoded" in shown.output
    total = sum(encoded)
    again = total - before
    encoded.clear()
    shutil.move(tmp_path / "x.h5ad", tmp_path / "resumed.h5ad")
    assert predict(*command).exit_code == 0
    assert 0 < again < sum(encoded) - 100
    np.testing.assert_array_equal(read(tmp_path / "x.h5ad").X, read(tmp_path / "resumed.h5ad").X)
    assert not (tmp_path / ".x.features").exists()


def test_a_kill_after_stage_one_costs_no_encoding(
    setting: Setting, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    command = (setting.runs["full"], "--image", setting.image, "--mpp", 0.25, "--out", tmp_path / "x.h5ad")

    def killed(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as between:
        between.setattr("train.predict.slides.predict_slide", killed)
        assert predict(*command).exit_code == 130

    def refuse(*_: object) -> None:
        raise AssertionError("encoded again")

    monkeypatch.setattr(FeatureSink, "_encode", refuse)
    shown = predict(*command)
    assert shown.exit_code == 0, shown.output


def test_features_of_another_image_that_were_left_are_not_taken(
    setting: Setting, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = tmp_path / "other" / setting.image.name
    other.parent.mkdir()
    tifffile.imwrite(other, tifffile.imread(setting.image)[::-1].copy())

    def killed(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as between:
        between.setattr("train.predict.slides.predict_slide", killed)
        predict(setting.runs["frozen"], "--image", setting.image, "--mpp", 0.25, "--out", tmp_path / "x.h5ad")
    assert (tmp_path / ".x.features" / "geometry.lmdb").exists()
    tables = []
    for image, name in ((other, "x"), (setting.image, "y"), (other, "z")):
        predict(setting.runs["frozen"], "--image", image, "--mpp", 0.25, "--out", tmp_path / f"{name}.h5ad")
        tables.append(read(tmp_path / f"{name}.h5ad").X)
    np.testing.assert_array_equal(tables[0], tables[2])
    assert not np.array_equal(tables[0], tables[1])


def test_a_run_of_before_finds_in_its_store_how_its_features_were_made(
    setting: Setting, small_store: Store, tmp_path: Path
) -> None:
    run = shutil.copytree(setting.runs["frozen"], tmp_path / "run")
    edited(run / "run.json", lambda described: described.pop("stage_one"))
    command = (run, "--image", setting.image, "--mpp", 0.25)
    assert predict(*command).exit_code == 0
    predict(setting.runs["frozen"], "--image", setting.image, "--mpp", 0.25, "--out", tmp_path / "x.h5ad")
    np.testing.assert_array_equal(read(run / "predictions/new-slide.h5ad").X, read(tmp_path / "x.h5ad").X)
    edited(run / "run.json", lambda described: described["config"]["data"].update(store=str(tmp_path / "gone")))
    with pytest.raises(MagnetError, match=r"gone, how its features were made, found neither; name its training store"):
        predict(*command, "--overwrite")
    assert predict(*command, "--overwrite", "--store", small_store.root).exit_code == 0


def test_one_images_fault_is_one_line_and_the_others_go_on(setting: Setting, tmp_path: Path) -> None:
    run = shutil.copytree(setting.runs["frozen"], tmp_path / "run")
    (tmp_path / "broken.tif").write_bytes(b"II*\0 and no more")
    tifffile.imwrite(tmp_path / "glass.tif", np.full((800, 800, 3), 245, np.uint8))
    sheet = tmp_path / "samples.csv"
    sheet.write_text(
        "slide_id,image,mpp\nnone,absent.tif,0.25\nbroken,broken.tif,0.25\nglass,glass.tif,0.25\n"
        f"unstated,{setting.image},\ngood,{setting.image},0.25\n"
    )
    shown = predict(run, "--samples", sheet)
    assert shown.exit_code == 1
    assert "failed: none: slide 'none': expected column 'image' of samples.csv to name an existing path" in shown.output
    assert "failed: broken: " in shown.output
    assert "failed: glass: slide 'glass': expected H&E-stained tissue" in shown.output
    assert "failed: unstated: slide 'unstated': expected its µm/px in samples.csv" in shown.output
    assert shown.output.count("failed: ") == 5  # four, and the sum
    assert "Traceback" not in shown.output
    assert [path.name for path in (run / "predictions").iterdir()] == ["good.h5ad"]  # nor anything left of the others


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--image", "{image}"], r"expected its µm/px in --mpp, .*; write it after --mpp"),
        (["--image", "{image}", "--mpp", "fast"], r"--mpp: expected mpp in µm/px between .* found 'fast'"),
        (["--image", "absent.svs"], r"--image absent.svs: expected an image file, found no such file"),
        (["--image", "{image}", "--slide", "S1"], r"expected --slide .* found --slide and --image; say which"),
        ([], r"expected --slide .*, --image or --samples .* found none of them"),
        (["--slide", "S1", "--mpp", "0.25"], r"--mpp: expected it with --image, found it with --slide"),
        (["--image", "{image}", "--views", "3"], r"--views: expected 1 or 8, found 3"),
        (["--image", "{image}", "--image", "b/new slide.svs"], r"expected a file name that no other image has"),
        (
            ["--image", "{image}", "--tissue", "x.geojson", "--like", "outs"],
            r"--tissue: expected --tissue or --like, .* both",
        ),
        (["--image", "{image}", "--tissue", "absent.png"], r"--tissue absent.png: expected a file, found no such file"),
        (["--image", "a.tif", "--image", "b.tif", "--like", "outs"], r"--like: expected one --image, found 2"),
        (["--image", "{image}", "--like", "absent"], r"absent: expected a folder with binned_outputs/square_008um"),
        (["--image", "{image}", "--measured"], r"--measured: expected counts to compare with, .* with --like"),
        (["--image", "{image}", "--genes", ""], r"--genes: expected names with commas between, found ''"),
        (["--image", "{image}", "--ensemble"], r"--ensemble: expected several trained runs, found 1"),
    ],
)
def test_mistakes_are_one_line(setting: Setting, options: list[str], says: str) -> None:
    with pytest.raises(MagnetError, match=says) as caught:
        predict(setting.runs["frozen"], *(option.format(image=setting.image) for option in options))
    assert "\n" not in str(caught.value)
    assert not list(setting.runs["frozen"].rglob("*.lmdb*"))


def test_a_disk_without_room_is_told_of_before_anything_is_encoded(
    setting: Setting, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(tmp_path)._replace(free=1000)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    with pytest.raises(MagnetError, match=r"expected .* of free space, for features .* found 1000 B; make room"):
        predict(setting.runs["frozen"], "--image", setting.image, "--mpp", 0.25, "--out", tmp_path / "x.h5ad")
    assert list(tmp_path.iterdir()) == []


def test_an_ensemble_is_the_mean_of_its_members_and_keeps_the_sd_between(
    setting: Setting, small_store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    third = untrained(small_store, tmp_path / "third", "encoder.mode=full", seed=3, genes=slice(2, 2 + NUM_GENES))
    runs = [setting.runs["frozen"], setting.runs["full"], third]
    of_image = ("--image", setting.image, "--mpp", 0.25)
    alone = []
    for number, run in enumerate(runs):
        assert predict(run, *of_image, "--out", tmp_path / f"{number}.h5ad").exit_code == 0
        alone.append(read(tmp_path / f"{number}.h5ad"))
    shown = predict(*runs, "--ensemble", *of_image, "--out", tmp_path / "all.h5ad")
    assert shown.exit_code == 0, shown.output
    assert "18 of 20 genes are in the panels of all 3 runs" in shown.output
    table = read(tmp_path / "all.h5ad")
    assert list(table.var_names) == list(alone[0].var_names[2:])
    members = np.stack([each[:, table.var_names].X for each in alone])
    np.testing.assert_allclose(table.X, members.mean(axis=0), atol=2e-6)
    np.testing.assert_allclose(table.layers["deviation"], members.std(axis=0, ddof=1), atol=2e-6)
    assert list(table.uns["magnet_hd"]["run"]) == list(map(str, runs))


def test_an_ensemble_of_other_features_is_refused(setting: Setting, tmp_path: Path) -> None:
    other = shutil.copytree(setting.runs["full"], tmp_path / "other")
    edited(other / "run.json", lambda run: run["stage_one"]["settings"].update(token_grid=4))
    with pytest.raises(MagnetError, match=r"other: expected features made as those of frozen, found other settings"):
        predict(setting.runs["frozen"], other, "--ensemble", "--image", setting.image, "--mpp", 0.25)


def test_eight_views_are_the_mean_over_the_symmetries(small_store: Store, tmp_path: Path) -> None:
    slide, predictor = parts(small_store, config(small_store, tmp_path, "encoder.mode=full"))
    alone = [predict_slide(predictor, slide, symmetries=(symmetry,)) for symmetry in (0, 3, 5)]
    assert np.abs(alone[0] - alone[1]).max() > 1e-4
    together = predict_slide(predictor, slide, symmetries=(0, 3, 5))
    np.testing.assert_allclose(together, np.mean(alone, axis=0), atol=1e-6)


def test_all_views_of_an_image_are_those_of_two_steps(setting: Setting, tmp_path: Path) -> None:
    store = tmp_path / "store"
    two_steps = RunConfig(
        samples=setting.store.parent / "samples.csv",
        store=store,
        geometry=GeometryConfig(targets=(8,), sampling="all"),
        embedding=EmbeddingConfig(backbone=BACKBONE, weights="random", token_grid=2, views=8),
        pixels=False,
    )
    assert extract(two_steps).failed == {}
    run = setting.runs["frozen"]
    for number, source in enumerate(
        (("--image", setting.image, "--mpp", 0.25), ("--slide", "new-slide", "--store", store))
    ):
        shown = predict(run, *source, "--views", 8, "--out", tmp_path / f"{number}.h5ad")
        assert shown.exit_code == 0, shown.output
    tables = [read(tmp_path / f"{number}.h5ad") for number in (0, 1)]
    np.testing.assert_array_equal(tables[0].X, tables[1].X)
    assert tables[0].uns["magnet_hd"]["views"] == 8
    with pytest.raises(MagnetError, match=r"expected features of every symmetry of a patch, found those of one view"):
        predict(run, "--slide", "new-slide", "--store", setting.store, "--views", 8, "--out", tmp_path / "x.h5ad")


def test_bins_of_space_ranger_are_predicted_by_their_barcodes_without_counts(
    setting: Setting, small_store: Store, tmp_path: Path
) -> None:
    """As the same slide with its counts is, whose bins are in the same places."""
    data = small_store.root.parent / "data/S1"
    image, outs = data / "S1_tissue_image.btf", tmp_path / "outs"
    shutil.copytree(data / "outs", outs, ignore=shutil.ignore_patterns("*matrix*"))
    shown = predict(setting.runs["frozen"], "--image", image, "--like", outs, "--out", tmp_path / "like.h5ad")
    assert shown.exit_code == 0, shown.output
    sheet = tmp_path / "samples.csv"
    sheet.write_text(f"slide_id,image,counts\nS1,{image},{data / 'outs'}\n")
    out = tmp_path / "counts.h5ad"
    shown = predict(setting.runs["frozen"], "--image", image, "--like", data / "outs", "--out", out, "--measured")
    assert shown.exit_code == 0, shown.output
    like, counted = read(tmp_path / "like.h5ad"), read(out)
    shown = predict(setting.runs["frozen"], "--samples", sheet, "--out", out, "--measured", "--overwrite")
    np.testing.assert_array_equal(read(out).layers["measured"], counted.layers["measured"])
    pcc = re.search(r"S1: PCC with .* (\S+) per gene \(noise ceiling at most (\S+)\), (\S+) per row", shown.output)
    expected = evaluate(counted.X, counted.layers["measured"])
    assert pcc is not None
    assert (pcc[1], pcc[3]) == (f"{expected.pcc_gene:.3f}", f"{expected.pcc_bin:.3f}")
    assert 0 < float(pcc[2]) < 1
    np.testing.assert_array_equal(like.obs_names, counted.obs_names)
    np.testing.assert_array_equal(like.X, counted.X)
    assert counted.layers["measured"].max() > 0


def test_tissue_that_is_drawn_is_what_is_predicted(setting: Setting, tmp_path: Path) -> None:
    drawn, out = tmp_path / "drawn.geojson", tmp_path / "x.h5ad"
    corners = [[64, 64], [320, 64], [320, 320], [64, 320], [64, 64]]
    drawn.write_text(json.dumps({"type": "Polygon", "coordinates": [corners]}))
    shown = predict(setting.runs["frozen"], "--image", setting.image, "--mpp", 0.25, "--tissue", drawn, "--out", out)
    assert shown.exit_code == 0, shown.output
    assert read(out).n_obs == 8 * 8
    pixels = read(out).obsm["spatial"]
    assert pixels.min() > 64
    assert pixels.max() < 320

import csv
import shutil
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from cache.reader import ArrayFile
from cache.store import Store
from extract import pipeline
from extract.cli import app
from extract.config import EmbeddingConfig, GeometryConfig, RunConfig
from extract.pipeline import run
from extract.sinks import FeatureSink
from magnet_core.backbones.encoder import build_encoder
from magnet_core.backbones.find import find_backbone
from magnet_core.backbones.own_square import OwnSquare
from magnet_core.errors import MagnetError
from magnet_core.levels import feature_name, own_square_um
from magnet_core.slides import ScaledSlide, open_slide
from magnet_core.slides.stain import stain_table
from magnet_core.symmetry import turn
from tests.cache.versions import as_version_1

BACKBONE = "timm:test_convnext"


def config(samples: Path, store: Path, *, backbone: str = BACKBONE, **settings: object) -> RunConfig:
    return RunConfig(
        samples=samples,
        store=store,
        geometry=GeometryConfig(bins=150, spots=20, window=8),
        embedding=EmbeddingConfig(backbone=backbone, weights="random", token_grid=2),
        **settings,  # type: ignore[arg-type]
    )


@pytest.fixture(scope="module")
def store(small_samples: Path, tmp_path_factory: pytest.TempPathFactory) -> Store:
    root = tmp_path_factory.mktemp("store")
    summary = run(config(small_samples, root))
    assert (summary.written, summary.failed) == (["S1", "S2"], {})
    return Store(root)


def contents(path: Path) -> dict[str, np.ndarray]:
    with ArrayFile(path) as file:
        return {name: file.read(name) for name in file.names()}


def assert_same(first: Path, second: Path) -> None:
    one, other = contents(first), contents(second)
    assert one.keys() == other.keys()
    for name in one:
        np.testing.assert_array_equal(one[name], other[name], err_msg=name)


def test_a_matched_stain_is_that_of_pixels_and_of_features(store: Store, small_samples: Path, tmp_path: Path) -> None:
    matched = config(small_samples, tmp_path, stain="matched", slides=("S1",))
    assert run(matched).failed == {}
    raw, seen = store.geometry("S1"), Store(tmp_path).geometry("S1")
    with open_slide(small_samples.parent / "S1" / "S1_tissue_image.btf") as slide:
        table = stain_table(slide, raw.header["mpp"])
    assert table is not None
    for level in (level for level, facts in raw.header["levels"].items() if facts["pixels"]):
        before, after = raw.read(f"{level}/pixels"), seen.read(f"{level}/pixels")
        for colour in range(3):
            np.testing.assert_array_equal(after[..., colour], table[colour][before[..., colour]])
    features = [each.features("S1", BACKBONE) for each in (store, Store(tmp_path))]
    assert features[0].header["settings_digest"] != features[1].header["settings_digest"]
    assert run(matched.changed(stain="as_is")).failed.keys() == {"S1"}  # a slide that is laid stays as it is


def test_pixels_and_features_are_those_of_the_patch_at_the_rows_coordinates(store: Store, small_samples: Path) -> None:
    encoder = build_encoder(find_backbone(BACKBONE), "random")
    geometry, features = store.geometry("S1"), store.features("S1", BACKBONE)
    with open_slide(small_samples.parent / "S1" / "S1_tissue_image.btf") as slide:
        scaled = ScaledSlide(slide, geometry.header["mpp"])
        for level, facts in geometry.header["levels"].items():
            side = round(facts["patch_um"] / 0.25)
            row = len(geometry.read(f"{level}/barcode")) // 2
            x, y = np.round(geometry.read(f"{level}/centres_um")[row] / 0.25 - side / 2).astype(int).tolist()
            patch = scaled.read(x, y, side, side)
            if facts["pixels"]:
                np.testing.assert_array_equal(geometry.gather(f"{level}/pixels", np.array([row]))[0], patch)
            side_um = own_square_um(level, patch_um=facts["patch_um"])
            own = None if side_um is None else OwnSquare(side_um / facts["patch_um"], 2)
            with torch.inference_mode():
                expected = encoder(torch.from_numpy(patch[None]), 2, own=own)
            pooled = features.gather(f"{level}/pooled", np.array([row]))
            np.testing.assert_allclose(pooled, expected.pooled, rtol=2e-2, atol=2e-3)
            if f"{level}/tokens" in features.names():
                tokens = features.gather(f"{level}/tokens", np.array([row]))
                np.testing.assert_allclose(tokens, expected.tokens, rtol=2e-2, atol=2e-3)
            assert (f"{level}/own" in features.names()) == (own is not None)
            if own is not None:
                of_square = features.gather(f"{level}/own", np.array([row]))
                np.testing.assert_allclose(of_square, expected.own, rtol=2e-2, atol=2e-3)


def test_a_slides_picture_shows_it_whole_and_lies_where_its_rows_lie(store: Store, small_samples: Path) -> None:
    picture = store.picture("S1")
    assert picture is not None
    with ArrayFile(store.geometry_path("S1")) as geometry, open_slide(Path(geometry.header["image"])) as slide:
        width, height = slide.size_px
        um = geometry.header["mpp"]
        shape = round(height * um / picture.um_per_px), round(width * um / picture.um_per_px)
        assert picture.pixels.shape[:2] == shape
        at = geometry.read("region/centres_um")[0]
        x, y = np.round((at - 64) / 0.25).astype(int)
        around = ScaledSlide(slide, um).read(x, y, 512, 512)
    row, column = np.round((at - 64) / picture.um_per_px).astype(int)[::-1]
    side = round(128 / picture.um_per_px)
    shown = picture.pixels[row : row + side, column : column + side]
    np.testing.assert_allclose(shown.mean((0, 1)), around.mean((0, 1)), atol=4)


def test_a_finished_store_without_pictures_gets_them_and_nothing_else(
    store: Store, small_samples: Path, tmp_path: Path
) -> None:
    shutil.copytree(store.root, tmp_path / "store")
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "store").glob("*/*.lmdb")}
    for path in (tmp_path / "store").glob("*/picture.jpg"):
        path.unlink()
    assert run(config(small_samples, tmp_path / "store")).unchanged == ["S1", "S2"]
    again = Store(tmp_path / "store")
    for slide_id in ("S1", "S2"):
        assert again.picture_path(slide_id).read_bytes() == store.picture_path(slide_id).read_bytes()
    assert {path: path.stat().st_mtime_ns for path in before} == before


def test_a_slide_damaged_beside_its_tissue_is_extracted_without_a_picture(
    small_samples: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def damaged(slide: object, max_px: int) -> None:
        raise MagnetError("x.tiff", expected="readable pixels", found="none", remedy="copy it again")

    monkeypatch.setattr("extract.picture.thumbnail", damaged)
    summary = run(config(small_samples, tmp_path / "store"))
    assert summary.written == ["S1", "S2"]
    assert Store(tmp_path / "store").picture("S1") is None
    assert "S1: no picture to lay maps on: x.tiff" in caplog.text


def test_views_are_the_features_of_the_patch_turned(small_samples: Path, tmp_path: Path) -> None:
    embedding = EmbeddingConfig(backbone=BACKBONE, weights="random", token_grid=2, views=8)
    geometry_config = GeometryConfig(targets=(55,), spots=12, window=4)
    run(RunConfig(samples=small_samples, store=tmp_path, geometry=geometry_config, embedding=embedding, slides=("S1",)))
    geometry, features = Store(tmp_path).geometry("S1"), Store(tmp_path).features("S1", BACKBONE)
    encoder = build_encoder(find_backbone(BACKBONE), "random")
    row = np.array([3])
    patch = torch.from_numpy(geometry.gather("spot/pixels", row))
    for view in range(8):
        with torch.inference_mode():
            expected = encoder(turn(patch, view), 2, own=OwnSquare(1, 2))
        for kind in ("pooled", "tokens", "own"):
            stored = features.gather(feature_name("spot", kind, view=view), row)
            np.testing.assert_allclose(stored, getattr(expected, kind), rtol=2e-2, atol=2e-3)


def test_precision_changes_the_values_a_little_and_the_name_of_the_file(small_samples: Path, tmp_path: Path) -> None:
    for precision in ("fp32", "bf16"):
        embedding = EmbeddingConfig(backbone=BACKBONE, weights="random", token_grid=1, precision=precision)
        geometry = GeometryConfig(targets=(55,), spots=12)
        run(RunConfig(samples=small_samples, store=tmp_path, geometry=geometry, embedding=embedding, slides=("S1",)))
    one, other = (contents(file.path)["spot/pooled"] for file in Store(tmp_path).feature_files("S1"))
    assert not np.array_equal(one, other)
    np.testing.assert_allclose(one, other, atol=0.1)


def test_a_second_run_does_nothing_and_says_so(store: Store, small_samples: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in store.root.rglob("*.lmdb")}
    summary = run(config(small_samples, store.root))
    assert (summary.written, summary.unchanged) == ([], ["S1", "S2"])
    assert {path: path.stat().st_mtime_ns for path in store.root.rglob("*.lmdb")} == before


def test_a_store_of_version_1_has_all_that_a_run_would_write(store: Store, small_samples: Path, tmp_path: Path) -> None:
    root = Path(shutil.copytree(store.root, tmp_path / "store"))
    for path in root.rglob("*.lmdb"):
        as_version_1(path)
    summary = run(config(small_samples, root))
    assert (summary.written, summary.unchanged, summary.failed) == ([], ["S1", "S2"], {})


def test_another_backbone_adds_embeddings_and_opens_no_counts(
    store: Store, small_samples: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_: object) -> None:
        raise AssertionError("counts were read again")

    monkeypatch.setattr(pipeline, "read_counts", refuse)
    geometry = store.geometry_path("S1").stat().st_mtime_ns
    assert run(config(small_samples, store.root, backbone="timm:test_vit", slides=("S1",))).written == ["S1"]
    assert store.geometry_path("S1").stat().st_mtime_ns == geometry
    assert {file.backbone for file in store.feature_files("S1")} == {BACKBONE, "timm:test_vit"}


def test_a_store_without_own_squares_gets_them_and_is_not_laid_anew(
    small_samples: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def extract(own: int) -> list[str]:
        embedding = EmbeddingConfig(backbone=BACKBONE, weights="random", token_grid=2, own=own)
        geometry = GeometryConfig(targets=(55,), spots=12)
        return run(
            RunConfig(samples=small_samples, store=tmp_path, geometry=geometry, embedding=embedding, slides=("S1",))
        ).written

    assert extract(0) == ["S1"]
    store = Store(tmp_path)
    before = contents(store.features("S1", BACKBONE).path)
    laid = store.geometry_path("S1").stat().st_mtime_ns
    monkeypatch.setattr("extract.pipeline.read_counts", lambda _: pytest.fail("counts were read again"))
    assert extract(2) == ["S1"]
    assert extract(0) == extract(2) == []
    assert store.geometry_path("S1").stat().st_mtime_ns == laid
    after = contents(store.features("S1", BACKBONE).path)  # the features with most
    assert after.keys() - before.keys() == {"spot/own"}
    for name, values in before.items():
        np.testing.assert_array_equal(values, after[name], err_msg=name)


def test_a_run_that_was_cut_short_resumes_to_the_same_values(
    store: Store, small_samples: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    encode, calls = FeatureSink._encode, 0

    def cut_short(sink: FeatureSink, batch: np.ndarray) -> dict[str, np.ndarray]:
        nonlocal calls
        calls += 1
        if calls == 4:
            raise KeyboardInterrupt
        return encode(sink, batch)

    monkeypatch.setattr(FeatureSink, "_encode", cut_short)
    with pytest.raises(KeyboardInterrupt):
        run(config(small_samples, tmp_path, slides=("S1",)))
    monkeypatch.setattr(FeatureSink, "_encode", encode)
    with pytest.raises(MagnetError):
        Store(tmp_path).geometry("S1")
    assert run(config(small_samples, tmp_path, slides=("S1",))).written == ["S1"]
    assert_same(store.geometry_path("S1"), Store(tmp_path).geometry_path("S1"))
    (expected,) = (file for file in store.feature_files("S1") if file.backbone == BACKBONE)
    (resumed,) = Store(tmp_path).feature_files("S1")
    assert_same(expected.path, resumed.path)


def test_workers_and_batch_size_change_no_geometry_and_no_file_name(
    store: Store, small_samples: Path, tmp_path: Path
) -> None:
    run(config(small_samples, tmp_path, workers=1, batch_size=7, slides=("S2",)))
    assert_same(store.geometry_path("S2"), Store(tmp_path).geometry_path("S2"))
    names = {file.path.name for file in store.feature_files("S2")}
    assert {file.path.name for file in Store(tmp_path).feature_files("S2")} <= names


def test_other_settings_never_overwrite_a_geometry(store: Store, small_samples: Path) -> None:
    other = RunConfig(
        samples=small_samples,
        store=store.root,
        geometry=GeometryConfig(bins=151, spots=20, window=8),
        embedding=EmbeddingConfig(backbone=BACKBONE, weights="random", token_grid=2),
    )
    summary = run(other)
    assert summary.failed.keys() == {"S1", "S2"}
    assert "found one that differs in bins; use another --store" in summary.failed["S1"]


def test_a_geometry_with_more_than_the_defaults_differs_from_one_of_the_defaults(
    small_samples: Path, tmp_path: Path
) -> None:
    matched = config(small_samples, tmp_path, slides=("S1",), stain="matched")
    assert run(matched).failed == {}
    summary = run(config(small_samples, tmp_path, slides=("S1",)))
    assert "found one that differs in stain; use another --store" in summary.failed["S1"]


def bad_samples(folder: Path, small_samples: Path) -> Path:
    """Write a sheet of faulty slides around one that is whole."""
    whole = small_samples.parent / "S1"
    image = whole / "S1_tissue_image.btf"
    (folder / "broken.btf").write_bytes(b"II+\x00 not an image")
    shutil.copytree(whole / "outs", folder / "foreign")
    positions = folder / "foreign" / "binned_outputs" / "square_008um" / "spatial" / "tissue_positions.parquet"
    shutil.copy(whole / "outs/binned_outputs/square_016um/spatial/tissue_positions.parquet", positions)
    shutil.copytree(whole / "outs", folder / "bare")
    for size in ("008", "016"):
        positions = folder / "bare" / "binned_outputs" / f"square_{size}um" / "spatial" / "tissue_positions.parquet"
        pl.read_parquet(positions).with_columns(in_tissue=pl.lit(0)).write_parquet(positions)
    flat = folder / "flat.png"
    Image.new("RGB", (64, 64)).save(flat)
    (folder / "spots").mkdir()
    (folder / "spots/a.tsv").write_text("\tG1\tG2\n1x1\t1\t2\n1x2\t3\t4\n")
    (folder / "spots/a_selection.tsv").write_text(
        "x\ty\tnew_x\tnew_y\tpixel_x\tpixel_y\tselected\n1\t1\t1\t1\t10\t10\t1\n1\t2\t1\t2\t10\t50\t1\n"
    )
    rows = [
        {"slide_id": "unreadable", "image": folder / "broken.btf", "counts": whole / "outs"},
        {"slide_id": "mismatch", "image": image, "counts": folder / "foreign"},
        {"slide_id": "empty", "image": image, "counts": folder / "bare"},
        {"slide_id": "no_mpp", "image": flat, "counts": folder / "spots"},
        {"slide_id": "wrong_image", "image": flat, "counts": whole / "outs"},
        {"slide_id": "no_image", "image": folder / "absent.btf"},
        {"slide_id": "no_counts", "image": image, "counts": folder / "absent"},
        {"slide_id": "other_mpp", "image": image, "counts": whole / "outs", "mpp": 1.5},
        {"slide_id": "whole", "image": image, "counts": whole / "outs"},
    ]
    sheet = folder / "samples.csv"
    with sheet.open("w", newline="") as file:
        writer = csv.DictWriter(file, ["slide_id", "image", "counts", "mpp"], restval="")
        writer.writeheader()
        writer.writerows(rows)
    return sheet


def test_each_bad_slide_is_one_line_the_others_are_done_and_the_exit_code_is_1(
    tmp_path: Path, small_samples: Path
) -> None:
    sheet = bad_samples(tmp_path, small_samples)
    summary = run(config(sheet, tmp_path / "store"))
    assert summary.written == ["whole"]
    says = {
        "unreadable": "broken.btf",
        "mismatch": "for example 's_008um_",
        "empty": "expected 8 µm bins in tissue, found none",
        "no_mpp": "expected its µm/px in samples.csv",
        "wrong_image": "full-resolution input image",
        "no_image": "column 'image' of samples.csv to name an existing path",
        "no_counts": "column 'counts' of samples.csv to name an existing path",
        "other_mpp": "1.5000 from samples.csv and 0.",
    }
    assert summary.failed.keys() == says.keys()
    for slide_id, text in says.items():
        assert text in summary.failed[slide_id]
        assert "\n" not in summary.failed[slide_id]
        assert "expected" in summary.failed[slide_id]
        assert "found" in summary.failed[slide_id]

    arguments = ["run", "--samples", str(sheet), "--store", str(tmp_path / "other"), "--backbone", BACKBONE]
    result = CliRunner().invoke(app, [*arguments, "--weights", "random", "--slide", "no_mpp"])
    assert result.exit_code == 1
    assert result.stderr.count("expected its µm/px in samples.csv") == 1
    assert result.stderr.endswith("failed: no_mpp (the reasons are above and in the record)\n")


def test_wrong_options_are_refused_before_anything_is_read(tmp_path: Path) -> None:
    for options, says in (
        (["--backbone", "reset50"], "did you mean resnet50"),
        (["--targets", "8,2"], "some of 8, 16, 55"),
        (["--sampling", "grid"], "windows, uniform, all"),
        (["--samples", str(tmp_path / "absent.csv")], "absent.csv"),
        (["--device", "gpu"], "auto, cpu, cuda"),
        (["--views", "4"], "--views: embedding.views: expected one of 1, 8, found 4"),
        (["--precision", "fp8"], "one of auto, fp32, bf16, fp16"),
        (["--backbone", "UNI"], "did you mean uni"),
        (["--samples", str(tmp_path)], "expected a sample table, found a folder"),
        (["--bins", "0"], "--bins: geometry.bins: expected 1 to 100,000,000, found 0"),
        (["--spots", "-1"], "--spots: geometry.spots: expected 1 to 100,000,000, found -1"),
        (["--tokens", "0"], "--tokens: embedding.token_grid: expected 1 to 16, found 0"),
        (["--workers", "0"], "--workers: workers: expected 1 to 256, found 0"),
        (["--batch-size", "0"], "--batch-size: batch_size: expected 1 to 4096, found 0"),
        (["--batch-size", "1000000000"], "batch_size: expected 1 to 4096, found 1000000000"),
        (["--tokens", "1000000"], "embedding.token_grid: expected 1 to 16, found 1000000"),
        (["--set", "workers=100000"], "--set: workers: expected 1 to 256, found 100000"),
        (["--set", "geometry.neighbours=1000000"], "geometry.neighbours: expected 1 to 256, found 1000000"),
        (["--set", "geometry.context_hops=1000000"], "geometry.context_hops: expected 0 to 64, found 1000000"),
        (["--set", "geometry.region_patch_um=1e9"], "geometry.region_patch_um: expected"),
        (["--seed", "-1"], "--seed: geometry.seed: expected 0 or more, found -1"),
    ):
        result = CliRunner().invoke(app, ["run", "--store", str(tmp_path / "store"), "--weights", "random", *options])
        assert isinstance(result.exception, MagnetError)
        assert says in str(result.exception)

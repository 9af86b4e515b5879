"""Features come in from h5 files, matched by position, and go out again; AnnData files are what scanpy reads."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import anndata
import h5py
import numpy as np
import pytest
from scipy import sparse
from typer.testing import CliRunner

from cache.cli import app
from cache.exchange import import_features
from cache.feature_h5 import read_feature_h5
from cache.reader import ArrayFile
from cache.store import Store
from cache.writer import ArrayWriter
from magnet_core.errors import MagnetError

MPP, PATCH_UM, SIDE_PX = 0.5, 56.0, 112
CENTRES_UM = np.array([[x, y] for y in (100.0, 156.0) for x in (200.0, 256.0, 312.0)])
COUNTS = sparse.csr_matrix(np.array([[1, 0, 2], [0, 0, 0], [0, 5, 0], [7, 0, 0], [0, 0, 1], [3, 2, 1]], np.int32))
FEATURES = np.arange(24, dtype=np.float32).reshape(6, 4) / 8  # exact in float16


@pytest.fixture
def store(tmp_path: Path) -> Store:
    store = Store.create(tmp_path / "store")
    store.register([{"slide_id": "A"}])
    header = {
        "digest": "g0",
        "image": "A.tif",
        "patient": "P1",
        "mpp": MPP,
        "mpp_source": "samples.csv",
        "levels": {
            "spot": {"patch_um": PATCH_UM, "pixels": True},
            "region": {"patch_um": 128.0, "pixels": False},
            "centre": {"patch_um": 28.0, "pixels": False},
        },
    }
    with ArrayWriter(store.geometry_path("A"), header) as writer:
        writer.put("genes/id", np.array(["E1", "E2", "E3"]))
        writer.put("genes/name", np.array(["A", "B", "C"]))
        for level in ("spot", "centre"):
            writer.put(f"{level}/centres_um", CENTRES_UM)
            writer.put(f"{level}/barcode", np.array([f"s{row}" for row in range(6)]))
        writer.put("region/centres_um", CENTRES_UM[[1]])
        writer.put("spot/counts/indptr", COUNTS.indptr.astype(np.int64))
        writer.put("spot/counts/indices", COUNTS.indices)
        writer.put("spot/counts/values", COUNTS.data)
        writer.commit()
    return store


def write_h5(path: Path, *, order: np.ndarray | None = None, **attributes: Any) -> Path:
    """Patches around every centre, in another order than the store's, 3 px off, with one more that no row has."""
    order = np.array([4, 0, 5, 2, 1, 3]) if order is None else order
    with h5py.File(path, "w") as file:
        corners = np.vstack([CENTRES_UM[order] / MPP - SIDE_PX / 2 + 3, [[5000, 5000]]]).astype(np.int64)
        file["features"] = np.vstack([FEATURES[order], np.full((1, 4), -1, np.float32)])
        file["coords"] = corners
        for name, value in attributes.items():
            file["coords"].attrs[name] = value
    return path


def test_rows_get_the_features_of_the_patch_at_their_place(store: Store, tmp_path: Path) -> None:
    done = import_features(
        write_h5(tmp_path / "a.h5", patch_size_level0=SIDE_PX),
        store,
        slide_id="A",
        level="spot",
        backbone="trident",
    )
    assert (done.rows, done.patches, done.width, done.changed) == (6, 7, 4, True)
    assert done.offset_um == pytest.approx(np.hypot(1.5, 1.5))
    with store.features("A", "trident") as features:
        assert features.verify() == []
        assert features.header["weights"]["source"] == "imported"
        assert features.header["geometry_digest"] == "g0"
        np.testing.assert_array_equal(features.read("spot/pooled"), FEATURES)
        np.testing.assert_array_equal(features.read("spot/tokens"), FEATURES[:, None])


@pytest.mark.parametrize(
    ("attributes", "stated_px"),
    [
        ({"patch_size_level0": SIDE_PX}, None),
        ({"patch_size": SIDE_PX, "patch_level": 0}, None),
        ({"patch_size": SIDE_PX // 2, "patch_level": 1, "downsample": (2.0, 2.0)}, None),
        ({"patch_size": 256}, float(SIDE_PX)),
        ({}, float(SIDE_PX)),
    ],
)
def test_patch_size_is_read_from_the_attributes_of_each_tool_or_stated(
    store: Store, tmp_path: Path, attributes: dict[str, Any], stated_px: float | None
) -> None:
    path = write_h5(tmp_path / "a.h5", **attributes)
    done = import_features(path, store, slide_id="A", level="spot", backbone="b", patch_px=stated_px)
    assert done.patch_um == pytest.approx(PATCH_UM)


def test_a_size_that_nobody_states_or_that_contradicts_is_an_error(store: Store, tmp_path: Path) -> None:
    silent, stating = write_h5(tmp_path / "a.h5"), write_h5(tmp_path / "b.h5", patch_size_level0=SIDE_PX)
    with pytest.raises(MagnetError, match="--patch-px"):
        import_features(silent, store, slide_id="A", level="spot", backbone="b")
    with pytest.raises(MagnetError, match=r"expected patches of 224\.0 level-0 px, as stated, found 112\.0"):
        import_features(stating, store, slide_id="A", level="spot", backbone="b", patch_px=224)


def test_rows_without_a_patch_are_counted(store: Store, tmp_path: Path) -> None:
    path = write_h5(tmp_path / "a.h5", order=np.array([0, 1, 2, 3]), patch_size_level0=SIDE_PX)
    with pytest.raises(MagnetError, match=r"level's 6 rows, found none for 2 of them"):
        import_features(path, store, slide_id="A", level="spot", backbone="b")
    assert store.feature_files("A") == []


def test_levels_add_up_in_one_file_and_a_repeated_import_changes_nothing(store: Store, tmp_path: Path) -> None:
    path = write_h5(tmp_path / "a.h5", patch_size_level0=SIDE_PX)
    first = import_features(path, store, slide_id="A", level="spot", backbone="b")
    second = import_features(path, store, slide_id="A", level="region", backbone="b")
    again = import_features(path, store, slide_id="A", level="region", backbone="b")
    assert (first.changed, second.changed, again.changed) == (True, True, False)
    assert again.path == second.path
    with store.features("A", "b") as features:  # one file: the first has been replaced
        np.testing.assert_array_equal(features.read("spot/pooled"), FEATURES)
        np.testing.assert_array_equal(features.read("region/pooled"), FEATURES[[1]])
    with h5py.File(path, "r+") as file:
        file["features"][...] *= 2
    with pytest.raises(MagnetError, match="other ones, imported before"):
        import_features(path, store, slide_id="A", level="spot", backbone="b")


def test_features_of_our_own_encoders_are_never_mixed_with_imported_ones(store: Store, tmp_path: Path) -> None:
    header = {"backbone": "uni", "settings_digest": "s", "weights": {"source": "pretrained", "seed": 0}}
    with ArrayWriter(store.features_path("A", "uni", "d"), header) as writer:
        writer.put("spot/pooled", FEATURES.astype(np.float16))
        writer.commit()
    path = write_h5(tmp_path / "a.h5", patch_size_level0=SIDE_PX)
    with pytest.raises(MagnetError, match="choose another --backbone, such as 'uni-imported'"):
        import_features(path, store, slide_id="A", level="spot", backbone="uni")


@pytest.mark.parametrize(
    ("write", "said"),
    [
        (lambda file: file.create_dataset("features", data=np.zeros((1, 768), np.float32)), "coords"),
        (
            lambda file: file.update({"features": np.zeros((3, 4), np.float32), "coords": np.zeros((2, 2))}),
            r"features \(3, 4\) of float32 and coords \(2, 2\)",
        ),
        (
            lambda file: file.update({"features": np.full((1, 4), 1e6, np.float32), "coords": np.zeros((1, 2))}),
            "float16",
        ),
    ],
)
def test_files_that_hold_something_else_are_one_line(
    store: Store, tmp_path: Path, write: Callable[[h5py.File], None], said: str
) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as file:
        write(file)
    with pytest.raises(MagnetError, match=said):
        import_features(tmp_path / "a.h5", store, slide_id="A", level="spot", backbone="b", patch_px=1e6)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda file: file["coords"].attrs.update({"patch_size_level0": 0}), "the side of a patch .* found 0;"),
        (lambda file: file["coords"].attrs.update({"patch_size_level0": -5}), "the side of a patch .* found -5;"),
        (lambda file: file["coords"].attrs.update({"patch_size_level0": np.nan}), "the side of a patch .* found nan;"),
        (lambda file: replace(file, "coords", np.full((7, 2), np.nan)), "coords in level-0 pixels, up to 10,000,000"),
        (lambda file: replace(file, "coords", np.full((7, 2), 1e308)), "coords in level-0 pixels, up to 10,000,000"),
        (
            lambda file: replace(file, "coords", np.full((7, 2), b"1")),
            r"features \(7, 4\) of float32 and coords \(7, 2\)",
        ),
        (lambda file: replace(file, "features", np.zeros((7, 0), np.float32)), r"features \(7, 0\) of float32"),
        (lambda file: claim_terabytes(file), "with no more than 0 bytes stored of it"),
        (lambda file: replace(file, "coords", h5py.ExternalLink("other.h5", "coords")), "an h5 file with 'features'"),
    ],
)
def test_absurd_files_are_one_line(
    store: Store, tmp_path: Path, change: Callable[[h5py.File], None], said: str
) -> None:
    path = write_h5(tmp_path / "a.h5", patch_size_level0=SIDE_PX)
    with h5py.File(path, "r+") as file:
        change(file)
    with pytest.raises(MagnetError, match=said):
        import_features(path, store, slide_id="A", level="spot", backbone="b")
    with pytest.raises(MagnetError, match="--patch-px: expected pixels above 0, found -1"):
        import_features(write_h5(tmp_path / "b.h5"), store, slide_id="A", level="spot", backbone="b", patch_px=-1)


def replace(file: h5py.File, name: str, values: object) -> None:
    del file[name]
    file[name] = values


def claim_terabytes(file: h5py.File) -> None:
    del file["features"]
    file.create_dataset("features", shape=(10**9, 768), dtype="f4", chunks=(64, 768))


def test_a_batch_axis_is_dropped_and_hest_names_are_known(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["embeddings"], file["coords"] = FEATURES[None], np.zeros((6, 2), np.int32)
    np.testing.assert_array_equal(read_feature_h5(tmp_path / "a.h5").features, FEATURES)


def test_exported_features_come_back_through_an_import(store: Store, tmp_path: Path) -> None:
    path, out = write_h5(tmp_path / "a.h5"), tmp_path / "out.h5"
    place = ["--store", str(store.root), "--slide", "A", "--level", "spot"]
    sizes = ["--patch-px", "224", "--patch-level-mpp", "0.25"]  # 56 µm
    runner = CliRunner()
    first = runner.invoke(app, ["import", str(path), *place, "--backbone", "b", *sizes])
    assert first.exit_code == 0
    assert "6 rows from 7 patches, 4 features; patches of 56.0 µm for rows of 56.0 µm" in first.stdout
    exported = runner.invoke(app, ["export", str(store.root), "--slide", "A", "--level", "spot", "--to", str(out)])
    assert exported.exit_code == 0
    back = runner.invoke(app, ["import", str(out), *place, "--backbone", "c"])
    assert back.exit_code == 0
    with store.features("A", "c") as features:
        np.testing.assert_array_equal(features.read("spot/pooled"), FEATURES)


def test_anndata_holds_raw_counts_places_and_resolution(store: Store, tmp_path: Path) -> None:
    import_features(
        write_h5(tmp_path / "a.h5", patch_size_level0=SIDE_PX), store, slide_id="A", level="spot", backbone="hf-hub:x/y"
    )
    out = tmp_path / "out.h5ad"
    arguments = ["export", str(store.root), "--slide", "A", "--level", "spot", "--to", str(out)]
    assert CliRunner().invoke(app, arguments).exit_code == 0
    table = anndata.read_h5ad(out)
    assert sparse.issparse(table.X)
    np.testing.assert_array_equal(table.X.toarray(), COUNTS.toarray())
    assert table.obs_names.tolist() == [f"s{row}" for row in range(6)]
    assert table.var_names.tolist() == ["A", "B", "C"]
    assert table.var["gene_ids"].tolist() == ["E1", "E2", "E3"]
    np.testing.assert_array_equal(table.obsm["spatial"], CENTRES_UM / MPP)
    np.testing.assert_array_equal(table.obsm["X_hf-hub-x-y"], FEATURES)
    assert table.uns["magnet_hd"]["microns_per_pixel"] == MPP
    assert table.uns["spatial"]["A"]["scalefactors"]["spot_diameter_fullres"] == SIDE_PX
    copied = tmp_path / "again.h5ad"
    table.write_h5ad(copied)  # AnnData itself finds it whole
    assert anndata.read_h5ad(copied).shape == table.shape


@pytest.mark.parametrize(
    ("level", "name", "said"),
    [
        ("centre", "x.h5ad", "expected a level with counts"),
        ("spto", "x.h5ad", "did you mean spot"),
        ("spot", "x.csv", "ending in .h5 or .h5ad"),
        ("spot", "x.h5", "expected one feature file"),
    ],
)
def test_what_cannot_be_exported_is_one_line_and_leaves_nothing(
    store: Store, tmp_path: Path, level: str, name: str, said: str
) -> None:
    arguments = ["export", str(store.root), "--slide", "A", "--level", level, "--to", str(tmp_path / name)]
    result = CliRunner().invoke(app, arguments)
    assert isinstance(result.exception, MagnetError)
    assert said in str(result.exception)
    assert [path.name for path in tmp_path.iterdir()] == ["store"]


def test_file_of_an_earlier_import_goes_only_when_the_new_one_is_whole(store: Store, tmp_path: Path) -> None:
    path = write_h5(tmp_path / "a.h5", patch_size_level0=SIDE_PX)
    first = import_features(path, store, slide_id="A", level="spot", backbone="b").path
    second = import_features(path, store, slide_id="A", level="centre", backbone="b").path
    assert not first.exists()
    with ArrayFile(second) as features:
        assert features.verify() == []
        assert set(features.header["imported"]) == {"spot", "centre"}

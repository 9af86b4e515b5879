"""The store knows its slides, finds their files, and says how to choose or make what is not there."""

import json
import multiprocessing
import shutil
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from cache.cli import app
from cache.lmdb_file import AbsentFileError
from cache.reader import ArrayFile
from cache.store import Store, backbone_slug
from cache.writer import ArrayWriter
from magnet_core.errors import MagnetError

COMMITTED = Path(__file__).resolve().parents[1] / "data"


def add_features(store: Store, slide_id: str, backbone: str, settings_digest: str) -> Path:
    path = store.features_path(slide_id, backbone, f"{slide_id}{settings_digest}")
    with ArrayWriter(path, {"backbone": backbone, "settings_digest": settings_digest}) as writer:
        writer.put("spot/pooled", np.full((3, 2), len(settings_digest), np.float16))
        writer.commit()
    return path


def add_geometry(store: Store, slide_id: str, *, commit: bool = True) -> Path:
    path = store.geometry_path(slide_id)
    with ArrayWriter(path, {"slide_id": slide_id, "targets": ["bin8"]}) as writer:
        writer.put("bin8/coords_um", np.arange(4000.0).reshape(-1, 2))
        if commit:
            writer.commit()
    return path


def register_one(root: Path, number: int) -> None:
    Store.create(root).register([{"slide_id": f"S{number}", "image": Path("a") / f"{number}.svs", "mpp": None}])


def test_slides_registered_by_many_jobs_are_all_there(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    jobs = [context.Process(target=register_one, args=(tmp_path / "store", number)) for number in range(4)]
    for job in jobs:
        job.start()
    for job in jobs:
        job.join(120)
    store = Store(tmp_path / "store")

    assert store.slide_ids() == ["S0", "S1", "S2", "S3"]
    assert store.samples()[2] == {"slide_id": "S2", "image": "a/2.svs", "mpp": None}
    assert {"python", "numpy", "torch"} <= store.provenance().keys()
    assert [path.name for path in (tmp_path / "store").iterdir()] == ["store.json"]


def test_registering_again_replaces_the_row(tmp_path: Path) -> None:
    store = Store.create(tmp_path)
    store.register([{"slide_id": "B", "mpp": 0.5}, {"slide_id": "A"}])
    Store.create(tmp_path).register([{"slide_id": "B", "mpp": 0.25}])
    assert store.samples() == [{"slide_id": "A"}, {"slide_id": "B", "mpp": 0.25}]


@pytest.mark.parametrize("slide_id", ["", "../up", "a b", "a/b", ".hidden"])
def test_a_slide_id_must_be_able_to_name_a_folder(tmp_path: Path, slide_id: str) -> None:
    with pytest.raises(MagnetError, match="rename the slide"):
        Store.create(tmp_path).register([{"slide_id": slide_id}])


def test_a_folder_without_an_index_is_no_store(tmp_path: Path) -> None:
    with pytest.raises(MagnetError, match="run 'extract run' first"):
        Store(tmp_path)
    (tmp_path / "store.json").write_text('{"schema_version": 99, "samples": []}')
    with pytest.raises(MagnetError, match="upgrade magnet-hd"):
        Store(tmp_path)
    (tmp_path / "store.json").write_text("{")
    with pytest.raises(MagnetError, match="finished slides are kept"):
        Store(tmp_path)


def test_geometry_is_opened_once_finished(tmp_path: Path) -> None:
    store = Store.create(tmp_path)
    store.register([{"slide_id": "P1"}])
    add_geometry(store, "P1", commit=False)
    with pytest.raises(AbsentFileError):
        store.geometry("P1")
    add_geometry(store, "P1")
    assert store.geometry("P1").header["slide_id"] == "P1"
    with pytest.raises(MagnetError, match="did you mean P1"):
        store.geometry("P2")


def test_features_are_found_by_backbone_and_settings(tmp_path: Path) -> None:
    store = Store.create(tmp_path)
    store.register([{"slide_id": "P1"}])
    add_geometry(store, "P1")
    with pytest.raises(AbsentFileError, match=r"no features; run 'extract run --backbone hf-hub:org/uni'"):
        store.features("P1", "hf-hub:org/uni")
    add_features(store, "P1", "hf-hub:org/uni", "aaa")
    add_features(store, "P1", "resnet50", "aaa")
    add_features(store, "P1", "resnet50", "bbbb")

    assert store.features("P1", "hf-hub:org/uni").read("spot/pooled")[0, 0] == 3
    assert store.features("P1", "resnet50", "bbbb").read("spot/pooled")[0, 0] == 4
    with pytest.raises(MagnetError, match=r"found 2: .*settings_digest=\.\.\., one of aaa or bbbb"):
        store.features("P1", "resnet50")
    with pytest.raises(AbsentFileError, match="hf-hub:org/uni with settings aaa, resnet50 with settings aaa"):
        store.features("P1", "resnet18")
    with pytest.raises(AbsentFileError, match="resnet50 with settings cc"):
        store.features("P1", "resnet50", "cc")
    files = [(file.backbone, file.digest, file.settings_digest) for file in store.feature_files("P1")]
    assert files == [
        ("hf-hub:org/uni", "P1aaa", "aaa"),
        ("resnet50", "P1aaa", "aaa"),
        ("resnet50", "P1bbbb", "bbbb"),
    ]


def test_of_features_that_differ_in_own_squares_alone_those_with_most_are_meant(tmp_path: Path) -> None:
    store = Store.create(tmp_path)
    store.register([{"slide_id": "P1"}])
    add_geometry(store, "P1")
    every = [{"tokens": 4}, {"tokens": 4, "own": 2}, {"tokens": 4, "own": 1}, {"tokens": 2}]
    for number, settings in enumerate(every):
        header = {"backbone": "resnet50", "settings_digest": f"digest{number}", "settings": settings}
        with ArrayWriter(store.features_path("P1", "resnet50", f"digest{number}"), header) as writer:
            writer.commit()
    with pytest.raises(MagnetError, match=r"one of digest1 \(own 2, tokens 4\) or digest3 \(own not set, tokens 2\)"):
        store.features("P1", "resnet50")
    store.features_path("P1", "resnet50", "digest3").unlink()
    assert store.features("P1", "resnet50").header["settings"] == {"tokens": 4, "own": 2}
    assert store.features("P1", "resnet50", "digest0").header["settings"] == {"tokens": 4}


def test_features_of_a_geometry_that_is_gone_are_not_taken(tmp_path: Path) -> None:
    store = Store.create(tmp_path)
    store.register([{"slide_id": "P1"}])
    with ArrayWriter(store.geometry_path("P1"), {"digest": "new"}) as writer:
        writer.commit()
    for geometry in ("old", "new"):
        header = {"backbone": "resnet50", "settings_digest": "aaa", "geometry_digest": geometry}
        with ArrayWriter(store.features_path("P1", "resnet50", geometry), header) as writer:
            writer.commit()
    assert store.features("P1", "resnet50").header["geometry_digest"] == "new"


@pytest.mark.parametrize(
    ("backbone", "slug"),
    [("resnet50", "resnet50"), ("hf-hub:org/name", "hf-hub-org-name"), ("timm:vit.in1k", "timm-vit.in1k")],
)
def test_a_backbones_name_becomes_a_file_name(backbone: str, slug: str) -> None:
    assert backbone_slug(backbone) == slug


def test_info_and_verify_say_what_is_there(tmp_path: Path) -> None:
    store = Store.create(tmp_path)
    store.register([{"slide_id": "P1"}, {"slide_id": "P2"}])
    add_geometry(store, "P1")
    add_features(store, "P1", "resnet50", "aaa")
    shown = CliRunner().invoke(app, ["info", str(tmp_path)])
    checked = CliRunner().invoke(app, ["verify", str(tmp_path)])

    assert shown.exit_code == 0
    assert "targets: bin8" in shown.stdout
    assert "resnet50 · digest P1aaa · settings aaa" in shown.stdout
    assert "2,000" in shown.stdout
    assert "geometry · absent" in shown.stdout
    assert checked.exit_code == 1
    assert checked.stdout.count("missing") == 1
    assert "2 files read, 1 faults" in checked.stdout


def test_verify_names_each_fault_and_each_leftover(tmp_path: Path) -> None:
    store = Store.create(tmp_path)
    store.register([{"slide_id": "P1"}])
    path = add_geometry(store, "P1")
    assert CliRunner().invoke(app, ["verify", str(tmp_path)]).exit_code == 0
    needle = ArrayFile(path).block("bin8/coords_um", 0).tobytes()
    content = bytearray(path.read_bytes())
    content[content.index(needle)] ^= 255
    path.unlink()
    path.write_bytes(content)
    features = add_features(store, "P1", "resnet50", "aaa")
    features.rename(f"{features}.partial")
    checked = CliRunner().invoke(app, ["verify", str(tmp_path)])

    assert checked.exit_code == 1
    assert "bin8/coords_um: block 0 does not match its checksum" in checked.stdout
    assert f"{features.name}.partial: unfinished" in checked.stdout


@pytest.mark.parametrize("version", [1, 2, 3])
def test_the_committed_store_of_each_version_reads_back(version: int) -> None:
    store = Store(COMMITTED / f"store_v{version}")
    assert json.loads((store.root / "store.json").read_text())["schema_version"] == version
    assert store.slide_ids() == ["P1"]
    geometry, features = store.geometry("P1"), store.features("P1", "hf-hub:org/name")
    coords_um = np.stack([np.arange(12) % 4, np.arange(12) // 4], axis=1) * 8.0

    assert geometry.header == {"slide_id": "P1", "side_um": 28.0, "targets": ["bin8"]}
    np.testing.assert_array_equal(geometry.read("bin8/coords_um"), coords_um)
    np.testing.assert_array_equal(geometry.gather("bin8/coords_um", np.array([11, 0])), coords_um[[11, 0]])
    np.testing.assert_array_equal(geometry.read("genes/names"), ["ACTB", "MT-CO1", "µ"])
    np.testing.assert_array_equal(geometry.read("bin8/counts/data"), np.arange(30, dtype=np.int32))
    np.testing.assert_array_equal(features.read("spot/tokens"), np.arange(48).reshape(3, 4, 4) / 8)
    assert features.read("spot/tokens").dtype == np.float16
    assert geometry.verify() == features.verify() == []


def test_a_store_of_version_1_takes_files_of_version_2(tmp_path: Path) -> None:
    root = Path(shutil.copytree(COMMITTED / "store_v1", tmp_path / "store"))
    store = Store.create(root)
    store.register([{"slide_id": "P2"}])
    add_geometry(store, "P2")
    add_features(store, "P1", "resnet50", "aaa")
    checked = CliRunner().invoke(app, ["verify", str(root)])

    assert "4 files read, 0 faults" in checked.stdout
    assert Store(root).slide_ids() == ["P1", "P2"]
    assert store.features("P1", "hf-hub:org/name").read("spot/tokens")[2, 3, 3] == 47 / 8
    assert store.features("P1", "resnet50").read("spot/pooled")[0, 0] == 3
    assert store.geometry("P2").read("bin8/coords_um")[1999, 1] == 3999

"""`cache repair` lists all that is wrong with a store, removes it on --yes alone, and nothing that is good."""

import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner, Result

from cache.cli import app
from cache.repair import mend, survey
from cache.store import Store
from cache.writer import ArrayWriter, partial_path
from magnet_core.errors import MagnetError
from magnet_core.sealed import read_sealed, write_sealed

SHEET = "/a/samples.csv"


def add_slide(store: Store, slide_id: str) -> None:
    """A registered slide with its geometry and the features of one backbone."""
    header = {"digest": f"geometry of {slide_id}", "settings": {"slide_id": slide_id, "image": f"image of {slide_id}"}}
    write(store.geometry_path(slide_id), header)
    add_features(store, slide_id, f"geometry of {slide_id}")
    store.register([{"slide_id": slide_id, "sheet": SHEET, "counts": "there", "patient": slide_id}])


def add_features(store: Store, slide_id: str, geometry: str, *, digest: str = "d1") -> Path:
    header = {"backbone": "resnet50", "settings_digest": digest, "geometry_digest": geometry}
    return write(store.features_path(slide_id, "resnet50", digest), header)


def write(path: Path, header: Mapping[str, object], *, commit: bool = True) -> Path:
    with ArrayWriter(path, header) as writer:
        writer.put("spot/pooled", np.arange(8000.0).reshape(-1, 2))
        if commit:
            writer.commit()
    return path


@pytest.fixture
def store(tmp_path: Path) -> Store:
    opened = Store.create(tmp_path / "store")
    for slide_id in ("S1", "S2", "S3"):
        add_slide(opened, slide_id)
    return opened


def files(store: Store) -> dict[str, bytes]:
    return {
        path.relative_to(store.root).as_posix(): path.read_bytes() for path in store.root.rglob("*") if path.is_file()
    }


def repair(store: Store, *options: str) -> Result:
    return CliRunner().invoke(app, ["repair", str(store.root), *options])


def verify(store: Store) -> Result:
    return CliRunner().invoke(app, ["verify", str(store.root)])


def test_of_a_store_without_faults_nothing_is_touched(store: Store) -> None:
    (store.root / "runs").mkdir()
    (store.root / "runs" / "record.json").write_text("{}")
    before = {path: path.stat().st_mtime_ns for path in (store.root, *store.root.rglob("*"))}
    for options in ([], ["--yes"]):
        done = repair(store, *options)
        assert done.exit_code == 0
        assert done.stdout == f"{store.root}: 0 found, 0 mended\n"
    assert verify(store).exit_code == 0
    assert CliRunner().invoke(app, ["info", str(store.root)]).exit_code == 0
    assert {path: path.stat().st_mtime_ns for path in (store.root, *store.root.rglob("*"))} == before


def test_all_that_is_wrong_is_listed_and_removed_on_yes_alone(store: Store) -> None:
    good = files(store)
    good.pop("store.json")
    (damaged,) = [file.path for file in store.feature_files("S1")]
    content = damaged.read_bytes()
    damaged.unlink()
    damaged.write_bytes(content.replace(np.float64(5).tobytes() + np.float64(6).tobytes(), bytes(16)))
    old = add_features(store, "S2", "a geometry that was deleted", digest="d0")
    unfinished = write(store.root / "S3" / "vit-d2.lmdb", {}, commit=False)
    lock = store.root / "S3" / "vit-d3.lmdb.lock"
    lock.write_text("host, process 1")
    stopped = store.root / "store.json.77.partial"
    stopped.write_text("{")
    orphan = write(store.root / "S9" / "geometry.lmdb", {"settings": {"slide_id": "S9"}})
    store.register([{"slide_id": "S4", "sheet": SHEET}, {"slide_id": "S5", "sheet": SHEET}])
    store.retire(SHEET, {"S1", "S2", "S3", "S4"})
    before = files(store)

    listed = repair(store)
    assert listed.exit_code == 1
    assert files(store) == before
    *lines, last = listed.stdout.splitlines()
    assert last == f"{store.root}: 8 found, 0 mended; --yes does what is listed"
    for where, what in [
        (stopped, "left by a process that was stopped; removes it"),
        (store.root / "S4", "no geometry.lmdb; takes its row out"),
        (store.root / "S5", f"stale, as {SHEET} no longer names it; takes its row out"),
        (damaged, "damaged (spot/pooled: block 0 does not match its checksum"),
        (old, "features of a geometry that is gone; removes it ("),
        (partial_path(unfinished), "unfinished, and no process is at it"),
        (lock, "a lock that nobody holds; removes it"),
        (orphan.parent, "of no registered slide;"),
    ]:
        assert [line for line in lines if line.startswith(f"{where}: ") and what in line], (where, lines)

    done = repair(store, "--yes")
    assert (done.exit_code, done.stdout.splitlines()[-1]) == (0, f"{store.root}: 8 found, 8 mended")
    good.pop(damaged.relative_to(store.root).as_posix())
    after = files(store)
    after.pop("store.json")
    assert after == good
    assert not orphan.parent.exists()
    assert store.slide_ids() == ["S1", "S2", "S3"]
    assert repair(store).stdout == f"{store.root}: 0 found, 0 mended\n"
    assert verify(store).exit_code == 0


def test_the_files_of_a_stale_slide_stay(store: Store) -> None:
    before = files(store)
    store.retire(SHEET, {"S1", "S2"})
    assert "stale" in CliRunner().invoke(app, ["info", str(store.root)]).stdout
    assert repair(store, "--yes").exit_code == 0
    assert store.slide_ids() == ["S1", "S2"]
    assert files(store).keys() == before.keys()


def test_deleted_folders_leave_a_store_that_is_mended(store: Store) -> None:
    for path in (store.root / "S2").iterdir():
        path.unlink()
    (store.root / "S2").rmdir()
    assert "missing; run 'extract run'" in verify(store).stdout
    assert repair(store, "--yes").exit_code == 0
    assert verify(store).exit_code == 0
    assert store.slide_ids() == ["S1", "S3"]


def test_what_a_live_process_writes_is_let_be(store: Store) -> None:
    script = (
        "import sys; from pathlib import Path; from cache.writer import ArrayWriter; import numpy as np\n"
        "with ArrayWriter(Path(sys.argv[1]), {}) as first, ArrayWriter(Path(sys.argv[2]), {}) as second:\n"
        "    first.put('a', np.arange(3)); second.put('a', np.arange(3)); print('here', flush=True); input()"
    )
    targets = [str(store.root / name) for name in ("S1/vit-d2.lmdb", "S9/geometry.lmdb")]
    with subprocess.Popen(
        [sys.executable, "-c", script, *targets], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as writer:
        assert writer.stdout is not None
        assert writer.stdout.readline() == "here\n"
        before = files(store)
        done = repair(store, "--yes")
        assert files(store) == before
        writer.communicate("\n")
    assert done.stdout == f"{store.root}: 0 found, 0 mended\n"
    assert repair(store).stdout.count("no process is at it") == 1
    assert repair(store).stdout.count("of no registered slide") == 1


def test_only_the_named_slides_are_mended(store: Store) -> None:
    for slide_id in ("S1", "S2"):
        write(store.root / slide_id / "vit-d2.lmdb", {}, commit=False)
    done = repair(store, "--yes", "--slide", "S2")
    assert done.stdout.splitlines()[-1] == f"{store.root}: 1 found, 1 mended"
    assert [path.parent.name for path in store.unfinished()] == ["S1"]


def test_after_the_index_was_lost_no_slide_is_taken_for_an_orphan(store: Store) -> None:
    before = files(store)
    (store.root / "store.json").unlink()
    done = repair(Store.create(store.root), "--yes")
    assert done.exit_code == 1
    assert done.stdout.count("removes nothing, as no slide at all is registered") == 3
    assert files(store).keys() == before.keys()


def test_two_folders_that_were_swapped_are_told_of_by_every_reader(store: Store) -> None:
    before = {name.partition("/")[2]: content for name, content in files(store).items()}
    for old, new in (("S1", "aside"), ("S2", "S1"), ("aside", "S2")):
        (store.root / old).rename(store.root / new)
    line = "expected the geometry of slide 'S1', found that of 'S2'; give each slide's folder its own name again"
    with pytest.raises(MagnetError, match=line):
        store.geometry("S1")
    with pytest.raises(MagnetError, match=line):
        store.features("S1", "resnet50")
    checked = verify(store)
    assert checked.exit_code == 1
    assert line in checked.stdout
    done = repair(store, "--yes")
    assert (done.exit_code, done.stdout.count("give the folders their own names again")) == (1, 2)
    assert {name.partition("/")[2]: content for name, content in files(store).items()}.keys() == before.keys()


def test_features_of_another_slide_are_not_taken_and_not_removed(store: Store) -> None:
    (one,), (other,) = ([file.path for file in store.feature_files(name)] for name in ("S1", "S2"))
    content = one.read_bytes(), other.read_bytes()
    for path, others in ((one, content[1]), (other, content[0])):
        path.unlink()
        path.write_bytes(others)
    with pytest.raises(MagnetError, match="expected features of resnet50"):
        store.features("S1", "resnet50")
    assert f"{one}: of another geometry than that beside it" in verify(store).stdout
    done = repair(store, "--yes")
    assert done.exit_code == 1
    assert f"{one}: features of slide 'S2'; move it to {store.root / 'S2'}" in done.stdout
    assert one.exists()


def test_one_damaged_file_does_not_hide_the_rest_from_info_and_verify(store: Store) -> None:
    path = store.geometry_path("S1")
    content = bytearray(path.read_bytes())
    content[4096 * 2 :: 4096] = bytes(len(content[4096 * 2 :: 4096]))
    for byte in range(2 * 4096, len(content), 4096):
        content[byte + 1] ^= 255
    path.unlink()
    path.write_bytes(content)
    shown = CliRunner().invoke(app, ["info", str(store.root)])
    assert shown.exit_code == 0
    assert "its page" in shown.stdout
    assert shown.stdout.count("resnet50 · digest d1") == 2
    assert "6 files read, 1 faults" in verify(store).stdout


def test_a_row_whose_slide_is_made_again_meanwhile_stays(store: Store) -> None:
    geometry = store.geometry_path("S2")
    content = geometry.read_bytes()
    geometry.unlink()
    (finding,) = [each for each in survey(store) if each.row == "S2"]
    geometry.write_bytes(content)  # by a run beside it
    assert not mend(store, finding)
    assert store.slide_ids() == ["S1", "S2", "S3"]
    store.retire(SHEET, {"S1", "S3"})
    (stale,) = [each for each in survey(store) if each.row]
    store.register([{"slide_id": "S2", "sheet": SHEET}])
    assert not mend(store, stale)
    assert store.slide_ids() == ["S1", "S2", "S3"]


def test_a_row_is_not_taken_while_a_process_makes_its_slide(store: Store) -> None:
    store.geometry_path("S2").unlink()
    (finding,) = [each for each in survey(store) if each.row == "S2"]
    with ArrayWriter(store.geometry_path("S2"), {}):
        assert not mend(store, finding)
        assert [each for each in survey(store) if each.row] == []


def test_who_registers_a_slide_waits_for_who_takes_its_row(store: Store) -> None:
    (row,) = [row for row in store.samples() if row["slide_id"] == "S2"]
    others = [each for each in store.samples() if each != row]
    path = store.root / "store.json"
    with store.locked():
        registering = threading.Thread(target=store.register, args=([row],))  # whose row is there, as it sees it
        registering.start()
        time.sleep(0.3)
        write_sealed(path, read_sealed(path, expected="", remedy="") | {"samples": others})
    registering.join()
    assert store.slide_ids() == ["S1", "S2", "S3"]


def test_the_files_of_a_slide_that_is_about_to_be_registered_are_not_taken(store: Store) -> None:
    slide = store.root / "S9"
    with store.being_made("S9"):
        write(slide / "geometry.lmdb", {"settings": {"slide_id": "S9"}})
        assert survey(store) == []
    (finding,) = survey(store)
    before = files(store)
    with store.being_made("S9"):  # by a run that began after it was looked for
        assert not mend(store, finding)
    store.register([{"slide_id": "S9"}])
    assert not mend(store, finding)
    assert {**before, "store.json": b""} == {**files(store), "store.json": b""}
    store.unregister(["S9"])
    assert mend(store, finding)
    assert not slide.exists()


def test_a_slide_of_which_nothing_could_be_made_leaves_no_folder(store: Store) -> None:
    with pytest.raises(ValueError, match="damaged"), store.being_made("S9"):
        raise ValueError("damaged")
    assert not (store.root / "S9").exists()

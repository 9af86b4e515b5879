import json
import math
import os
from pathlib import Path

import pytest

from magnet_core.files import replacing, replacing_folder, sync_below, write_json


def test_json_is_whole_and_leaves_nothing_beside(tmp_path: Path) -> None:
    write_json(tmp_path / "a" / "x.json", {"µ": [1.5, math.nan]})
    assert json.loads((tmp_path / "a" / "x.json").read_text(encoding="utf-8")) == {"µ": [1.5, None]}
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["x.json"]


def test_a_file_that_cannot_be_written_leaves_the_old_one(tmp_path: Path) -> None:
    write_json(tmp_path / "x.json", 1)
    with pytest.raises(ValueError, match="JSON compliant"):
        write_json(tmp_path / "x.json", math.inf)
    assert (tmp_path / "x.json").read_text() == "1\n"


def test_an_error_while_writing_leaves_the_old_file_and_nothing_beside(tmp_path: Path) -> None:
    (tmp_path / "x").write_text("old")

    def fail_halfway() -> None:
        with replacing(tmp_path / "x") as partial:
            partial.write_text("ne")
            raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        fail_halfway()
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {"x": "old"}


def test_files_and_folders_at_every_depth_are_brought_to_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "x").touch()
    (tmp_path / "a" / "b" / "y").touch()
    synced = []
    monkeypatch.setattr(os, "fsync", lambda descriptor: synced.append(os.fstat(descriptor).st_ino))
    sync_below(tmp_path)
    expected = [tmp_path, tmp_path / "x", tmp_path / "a", tmp_path / "a" / "b", tmp_path / "a" / "b" / "y"]
    assert sorted(synced) == sorted(path.stat().st_ino for path in expected)


def write_folder(path: Path, content: str) -> None:
    with replacing_folder(path) as partial:
        partial.mkdir()
        (partial / "part").write_text(content)


def test_a_folder_takes_the_place_of_another_and_leaves_nothing_beside(tmp_path: Path) -> None:
    folder = tmp_path / "deep" / "x.zarr"
    for content in ("old", "new"):
        write_folder(folder, content)
        assert (folder / "part").read_text() == content
        assert [path.name for path in folder.parent.iterdir()] == ["x.zarr"]


def test_a_folder_that_cannot_be_finished_or_moved_leaves_the_old_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "x.zarr"
    write_folder(folder, "old")

    def fail_halfway() -> None:
        with replacing_folder(folder) as partial:
            partial.mkdir()
            (partial / "part").write_text("ne")
            raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        fail_halfway()
    move = Path.replace

    def stop(self: Path, target: Path) -> Path:
        if self.name.endswith(".partial"):
            raise KeyboardInterrupt
        return move(self, target)

    monkeypatch.setattr(Path, "replace", stop)
    with pytest.raises(KeyboardInterrupt):
        write_folder(folder, "new")
    assert [path.name for path in tmp_path.iterdir()] == ["x.zarr"]
    assert (folder / "part").read_text() == "old"

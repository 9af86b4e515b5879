import json
import math
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from magnet_core import files
from magnet_core.files import remove_left, replacing, replacing_folder, sync_below, write_json, write_text


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


HALF = """
import sys, time
from pathlib import Path
from magnet_core.files import replacing
with replacing(Path(sys.argv[1])) as partial:
    partial.write_text("half of it")
    print(partial.name, flush=True)
    time.sleep(60)
"""


@contextmanager
def half_written(path: Path) -> Iterator[tuple["subprocess.Popen[str]", Path]]:
    """A process that is at writing a file, and what it has of it; it is killed in the end."""
    with subprocess.Popen([sys.executable, "-c", HALF, str(path)], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        yield process, path.with_name(process.stdout.readline().strip())
        process.send_signal(signal.SIGKILL)


def test_what_a_killed_process_left_goes_when_the_same_file_is_written_next(tmp_path: Path) -> None:
    table, other = tmp_path / "table.csv", tmp_path / "other.csv"
    with half_written(table) as (living, at_work):
        with half_written(table) as (killed, left), half_written(other) as (_, of_another_file):
            killed.kill()
            killed.wait()
            foreign = left.with_name(left.name.replace(left.name.split(".")[2], "another-host"))
            foreign.write_text("of a process that cannot be asked for")
            assert f".{killed.pid}.partial" in left.name
            write_text(table, "whole")
            assert {*tmp_path.iterdir()} == {table, at_work, foreign, of_another_file}
        remove_left(tmp_path)
        assert {*tmp_path.iterdir()} == {table, at_work, foreign}
        assert living.poll() is None
    remove_left(tmp_path, "other.csv")
    assert at_work.exists()
    remove_left(tmp_path)
    assert {*tmp_path.iterdir()} == {table, foreign}
    remove_left(tmp_path / "not there")


def test_a_host_of_any_name_is_one_part_of_a_files_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket, "gethostname", lambda: "knoten.7.beispiel/ä" * 20)
    files._host.cache_clear()
    with replacing(tmp_path / "x") as partial:
        partial.write_text("whole")
        assert partial.name.startswith("x.knoten-7-beispiel-")
        assert partial.name.count(".") == 3
    files._host.cache_clear()


def test_a_folder_that_made_room_for_one_that_never_came_is_put_back(tmp_path: Path) -> None:
    folder = tmp_path / "x.zarr"
    write_folder(folder, "old")
    with half_written(tmp_path / "y") as (killed, left):
        of_killed = left.name.removeprefix("y.").removesuffix("partial")
        killed.kill()
        killed.wait()
        former, partial = (tmp_path / f"x.zarr.{of_killed}{what}" for what in ("former", "partial"))
        folder.replace(former)
        write_folder(partial, "not known to be whole")
        assert not files.is_being_written(partial)
        remove_left(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["x.zarr"]
    assert (folder / "part").read_text() == "old"

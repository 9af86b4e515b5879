import os
from pathlib import Path

import numpy as np
import pytest

from cache import staging
from cache.reader import ArrayFile
from cache.staging import DAY, STAGE_GIB, UNUSED_DAYS, copy_of, staged
from cache.writer import ArrayWriter
from magnet_core.errors import MagnetError
from magnet_core.paths import STAGE_TO


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A file of a store."""
    path = tmp_path / "store" / "S1" / "geometry.lmdb"
    path.parent.mkdir(parents=True)
    with ArrayWriter(path, {"kind": "test"}) as writer:
        writer.put("rows", np.arange(1000))
        writer.commit()
    return path


def test_without_a_folder_the_file_is_read_where_it_is(source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(STAGE_TO, raising=False)
    file = ArrayFile(source)
    assert staged(file) is file


def test_a_copy_is_read_and_reused(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(STAGE_TO, str(tmp_path / "local" / "disk"))
    file = staged(ArrayFile(source))
    assert file.path.parent == tmp_path / "local" / "disk"
    assert file.path.read_bytes() == source.read_bytes()
    np.testing.assert_array_equal(file.read("rows"), np.arange(1000))
    monkeypatch.setattr(staging, "copy_checked", lambda *_: pytest.fail("it was copied again"))
    assert staged(ArrayFile(source)).path == file.path
    assert list(file.path.parent.glob("*.lock")) == []


def test_a_source_that_was_made_anew_is_copied_anew(source: Path, tmp_path: Path) -> None:
    before = copy_of(source, tmp_path / "local")
    os.utime(source, (1, 1))
    after = copy_of(source, tmp_path / "local")
    assert before != after
    other = tmp_path / "other" / "S1" / source.name
    other.parent.mkdir(parents=True)
    other.write_bytes(source.read_bytes())
    assert copy_of(other, tmp_path / "local") not in (before, after)


def test_the_least_recently_used_go_where_there_is_no_room_and_those_unused_for_long(tmp_path: Path) -> None:
    local, now = tmp_path / "local", [0.0]

    def used(name: str, at: float, most: float = float("inf")) -> Path | None:
        source = tmp_path / f"{name}.lmdb"
        if not source.exists():
            source.write_bytes(name.encode() * 100)
        now[0] = at
        return copy_of(source, local, most_bytes=most, clock=lambda: now[0])

    def there() -> list[str]:
        return sorted(path.read_bytes()[:1].decode() for path in local.glob("*.lmdb"))

    assert all(used(name, at) for at, name in enumerate("abc", start=1))
    used("a", 10)
    assert used("d", 11, most=300)
    assert there() == ["a", "c", "d"]
    assert used("e", 12, most=50) is None
    assert there() == []
    used("a", 20)
    used("b", 20 + UNUSED_DAYS * DAY)
    assert there() == ["b"]


def test_no_room_is_said_and_the_file_read_where_it_is(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv(STAGE_TO, str(tmp_path / "local"))
    monkeypatch.setenv(STAGE_GIB, "0")
    caplog.set_level("INFO", "magnet_hd")
    assert staged(ArrayFile(source)).path == source
    assert caplog.messages[0].startswith(f"{source}: read where it is, as {tmp_path / 'local'} has no room for ")
    monkeypatch.setenv(STAGE_GIB, "much")
    with pytest.raises(MagnetError, match=f"{STAGE_GIB}: expected a number of GiB, found 'much'"):
        staged(ArrayFile(source))


def test_a_copy_that_is_not_what_was_read_is_told_of_and_not_kept(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "fsync", lambda descriptor: os.ftruncate(descriptor, 10))  # a disk that loses bytes
    with pytest.raises(MagnetError, match=rf"expected the bytes of {source}, found others; check the disk"):
        copy_of(source, tmp_path / "local")
    assert list((tmp_path / "local").iterdir()) == []

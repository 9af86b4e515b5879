import errno
import fcntl
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from cache.lock import FileLock
from magnet_core.errors import MagnetError

HOLD = """
import sys, time
from pathlib import Path
from cache.lock import FileLock
lock = FileLock(Path(sys.argv[1]))
assert lock.acquire(wait=False)
print("held", flush=True)
time.sleep(60)
"""


def held_by_another_process(path: Path) -> "subprocess.Popen[str]":
    process = subprocess.Popen([sys.executable, "-c", HOLD, str(path)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    return process


def test_a_held_lock_names_its_holder_and_is_free_as_soon_as_it_is_killed(tmp_path: Path) -> None:
    path = tmp_path / "x.lock"
    with held_by_another_process(path) as process:
        lock = FileLock(path)
        assert not lock.acquire(wait=False)
        assert f"process {process.pid} (-c" in lock.owner()
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert lock.acquire(wait=False)
    assert f"process {os.getpid()} (" in FileLock(path).owner()
    lock.release()
    assert list(tmp_path.iterdir()) == []
    assert lock.owner() == "a process that has just ended"


def test_a_lock_that_is_waited_for_comes_when_its_holder_ends(tmp_path: Path) -> None:
    path = tmp_path / "x.lock"
    with held_by_another_process(path) as process:
        threading.Timer(0.3, process.kill).start()
        started = time.monotonic()
        lock = FileLock(path)
        assert lock.acquire(wait=True)
        assert time.monotonic() - started > 0.2
    assert not FileLock(path).acquire(wait=False)
    lock.release()


def test_a_file_that_was_removed_while_it_was_locked_is_not_the_lock(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, flock = tmp_path / "x.lock", fcntl.flock
    raced: list[Path] = []

    def removed_first(descriptor: int, operation: int) -> None:
        if not raced:  # as where a removed file keeps a name of its own, by which nobody else finds it
            raced.append(path.rename(tmp_path / ".nfs1"))
        flock(descriptor, operation)

    monkeypatch.setattr(fcntl, "flock", removed_first)
    lock = FileLock(path)
    assert lock.acquire(wait=False)
    assert raced == [tmp_path / ".nfs1"]
    assert "process" in path.read_text()
    assert not FileLock(path).acquire(wait=False)
    lock.release()


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_forked_child_neither_holds_nor_removes_the_lock(tmp_path: Path) -> None:
    lock = FileLock(tmp_path / "x.lock")
    assert lock.acquire(wait=False)
    ready, tell = os.pipe()
    end, go = os.pipe()
    if (child := os.fork()) == 0:
        lock.release()
        os.write(tell, b"x")
        os.read(end, 1)
        os._exit(0)
    os.read(ready, 1)
    assert lock.path.exists()
    assert not FileLock(lock.path).acquire(wait=False)
    lock.release()
    other = FileLock(lock.path)
    assert other.acquire(wait=False)
    other.release()
    os.write(go, b"x")
    os.waitpid(child, 0)
    for descriptor in (ready, tell, end, go):
        os.close(descriptor)


def test_a_file_system_without_locks_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(descriptor: int, operation: int) -> None:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))

    monkeypatch.setattr(fcntl, "flock", refused)
    with pytest.raises(MagnetError, match="a file system with file locks"):
        FileLock(tmp_path / "x.lock").acquire(wait=False)

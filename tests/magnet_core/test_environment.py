"""Faults of the machine: which errors are one, what is said of them, and that a command ends with that one line."""

import errno
import os
import sys
import threading
import types
from collections.abc import Callable
from pathlib import Path

import pytest

from magnet_core.console import run_command
from magnet_core.environment import FAULTS, fault_line, known_fault
from magnet_core.errors import MagnetError
from magnet_core.files import write_text


class OutOfMemoryError(RuntimeError):
    """Named as torch's."""


def wrapped(error: Exception, around: Exception) -> Exception:
    around.__cause__ = error
    return around


def full() -> OSError:
    return OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.parametrize(
    ("error", "says"),
    [
        (OSError(errno.EROFS, "x", "runs/a"), "runs/a: Read-only file system; name a folder that can be written"),
        (PermissionError(errno.EACCES, "x", b"runs/a"), "runs/a: Permission denied; check the path and its rights"),
        (full(), "No space left on device; make room on the disk, and give the same command again: it goes on"),
        (OSError(errno.ENOSPC, "Can't write data (errno = 28,\n buf = 0x7f)"), "No space left on device; make room"),
        (OSError("9 requested and 5 written"), "9 requested and 5 written; check the path, its rights and the space"),
        (wrapped(full(), RuntimeError("[enforce fail] . unexpected pos 704 vs 598")), "No space left on device; make"),
        (RuntimeError("parquet: IO error: No space left on device (os error 28)"), "No space left on device (Runtime"),
        (RuntimeError("(sqlite3.OperationalError) database or disk is full\n[SQL: x]"), "No space left on device ("),
        (MemoryError(), "memory ran out (MemoryError); free memory, or use less of it"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: 9 bytes"), "Cannot allocate memory (RuntimeError"),
        (OutOfMemoryError("CUDA out of memory"), "the GPU's memory is too small; set compute.micro_batch=16"),
    ],
)
def test_a_fault_of_the_machine_is_told_with_its_remedy(error: Exception, says: str) -> None:
    line = fault_line(error)
    assert line is not None
    assert line.startswith(says)


def test_a_mistake_of_the_program_is_none() -> None:
    assert fault_line(KeyError("a")) is None
    while_handling = KeyError("a")
    while_handling.__context__ = FileNotFoundError(errno.ENOENT, "No such file or directory", "x")
    assert fault_line(while_handling) is None
    assert known_fault(OSError(errno.EINVAL, "Invalid argument")) is None


def test_all_remedies_are_of_errors_that_this_system_knows_by_words() -> None:
    assert len({os.strerror(number) for number in FAULTS}) == len(FAULTS)


def test_a_full_disk_names_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> int:
        raise full()

    monkeypatch.setattr(Path, "write_text", refuse)
    with pytest.raises(OSError, match="No space left on device: .*table.txt"):
        write_text(tmp_path / "table.txt", "x")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("error", "says"),
    [
        (full(), "error: No space left on device; make room"),
        (MemoryError("a lot"), "error: memory ran out (a lot); free"),
        (wrapped(full(), RuntimeError("unexpected pos")), "error: No space left on device; make room"),
        (MagnetError("x", expected="a", found="b", remedy="c"), "error: x: expected a, found b; c"),
    ],
)
def test_a_command_ends_with_one_line_and_exit_code_1(
    error: Exception, says: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as end:
        run(lambda: raise_(error), monkeypatch)
    assert end.value.code == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(says)


def test_a_mistake_of_the_program_keeps_its_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(KeyError):
        run(lambda: raise_(KeyError("a")), monkeypatch)


def test_a_librarys_thread_that_meets_a_full_disk_says_nothing_of_its_own(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def app() -> None:
        for error in (full(), KeyError("a mistake")):
            thread = threading.Thread(target=raise_, args=(error,))
            thread.start()
            thread.join()

    run(app, monkeypatch)
    told = capsys.readouterr().err
    assert "No space left" not in told
    assert "a mistake" in told


def raise_(error: Exception) -> None:
    raise error


def run(app: Callable[[], None], monkeypatch: pytest.MonkeyPatch) -> None:
    """Run a command line that does nothing but call `app`."""
    module = types.ModuleType("a_command_line")
    module.app = app  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "a_command_line", module)
    monkeypatch.setattr(threading, "excepthook", threading.excepthook)
    run_command("a_command_line")

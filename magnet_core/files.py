"""Whole files or none: they are written beside their place, synced, and moved there.

What is being written is called after its file, its host and its process, as `table.csv.node7.4711.partial`. A process
that was killed leaves it; it is removed where the same file is written next, or where a command lists its folder
(`remove_left`), on the same host alone, as a process of another cannot be asked for.
"""

import functools
import glob
import json
import os
import re
import shutil
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

# Of a process, beside a file; of folders the one that gives its place is there, too. The journal is SQLite's.
_LEFT = re.compile(r"\.(?P<host>[A-Za-z0-9-]+)\.(?P<process>[0-9]+)\.(?P<what>partial|former)(?:-journal)?$")
_LONGEST_HOST = 40  # characters; a file's name has room for 255 bytes
_OUTERMOST = 0xEFFFFFFC  # Linux's number of the space of process ids that is within no other


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Within it, an error of the system that names no file, such as that of a full disk, names this one."""
    try:
        yield
    except OSError as error:
        if error.filename is None:
            error.strerror, error.filename = error.strerror or str(error), str(path)
        raise


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a file to write beside `path`, and move it there, synced, at the end: a reader finds the old or the new.

    On an error the file beside is removed, and so is what killed processes have left of the same file.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    remove_left(path.parent, path.name)
    partial = _beside(path, "partial")
    try:
        with naming(path):
            yield partial
            sync(partial)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


@contextmanager
def replacing_folder(path: Path) -> Iterator[Path]:
    """Yield a folder to make beside `path`, and move it there, synced, at the end: a reader finds no part of it.

    What was at `path` is moved aside for that, as no folder can take the place of another, and removed. On an error it
    is there as it was, and the folder beside is removed.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    remove_left(path.parent, path.name)
    partial, former = _beside(path, "partial"), _beside(path, "former")
    try:
        with naming(path):
            yield partial
            sync_below(partial)
        if path.exists():
            path.replace(former)
        partial.replace(path)
        sync(path.parent)
    finally:
        if former.exists() and not path.exists():
            former.replace(path)
        for left in (partial, former):
            _remove(left)


def remove_left(folder: Path, name: str | None = None) -> None:
    """Remove what processes of this host, killed since, have left unfinished in a folder: of all files, or of one.

    Never that of a living process. A folder that had made room for one that never came is put back. A folder that is
    not there, or cannot be written to, stays as it is.
    """
    with suppress(OSError):
        for path in folder.glob("*" if name is None else f"{glob.escape(name)}.*"):
            left = _LEFT.search(path.name)
            if left is None or left["host"] != _host() or _is_alive(int(left["process"])):
                continue
            whole = path.with_name(path.name[: left.start()])
            if name not in (None, whole.name):
                continue
            if left["what"] == "former" and not whole.exists():
                path.replace(whole)
            else:
                _remove(path)


def is_being_written(path: Path) -> bool:
    """Whether a file or folder is what a process, living or on another host, has of another that it writes."""
    left = _LEFT.search(path.name)
    return left is not None and (left["host"] != _host() or _is_alive(int(left["process"])))


def _beside(path: Path, what: str) -> Path:
    """Name what this process has beside a file or folder: several processes may write one table."""
    return path.with_name(f"{path.name}.{_host()}.{os.getpid()}.{what}")


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


@functools.cache
def _host() -> str:
    """Name this host, and within a container its space of process ids, as the same id is another process in each."""
    host = re.sub("[^A-Za-z0-9]+", "-", socket.gethostname())[:_LONGEST_HOST] or "host"
    with suppress(OSError):  # of systems other than Linux
        space = Path("/proc/self/ns/pid").stat().st_ino
        return host if space == _OUTERMOST else f"{host}-{space}"
    return host


def _is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):  # it is another user's, or no number of a process at all
        return True
    return True


def write_text(path: Path, text: str) -> None:
    """Write a text file, whole or not at all."""
    with replacing(path) as partial:
        partial.write_text(text, encoding="utf-8")


def write_json(path: Path, value: Any) -> None:
    """Write indented JSON, whole or not at all; NaN becomes null."""
    write_text(path, json.dumps(plain_json(value), indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def sync(path: Path) -> None:
    """Bring a file or a folder's list of names to disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_below(folder: Path) -> None:
    """Bring a folder and all below it to disk, before a file is written there that says it is whole."""
    for path in (folder, *folder.rglob("*")):
        sync(path)


def plain_json(value: Any) -> Any:
    """Values as JSON has them, so that they are the same after writing and reading: lists, text as keys, no NaN."""
    if isinstance(value, dict):
        return {str(key): plain_json(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain_json(item) for item in value]
    return None if isinstance(value, float) and value != value else value

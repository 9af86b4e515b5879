"""Whole files or none: they are written beside their place, synced, and moved there."""

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


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

    On an error the file beside is removed.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")  # several processes may write one table
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
    partial, former = (path.with_name(f"{path.name}.{os.getpid()}.{what}") for what in ("partial", "former"))
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
            if left.is_dir():
                shutil.rmtree(left, ignore_errors=True)
            else:
                left.unlink(missing_ok=True)


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

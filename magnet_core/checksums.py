"""Checksums of whole files: recorded in the sealed file that makes a folder whole, and compared when they are read.

In: a folder, and names of files below it. Out: checksums by name, xxh3_128 of the bytes; or one line that says which
file is not what was written. A file that stands alone carries its own at its end, where its format allows that, as
torch's does. They find damage; whoever changes files on purpose can write other checksums.
"""

import hashlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any, BinaryIO

import xxhash

from magnet_core.errors import MagnetError

FILES = "files"  # the key of a sealed file that holds them
_FORM = "xxh3_128:"
_END = b":xxh3_128"  # after the 32 hexadecimal digits of a checksum at the end of a file
_PART = 1 << 20


def file_checksum(path: Path) -> str:
    """Checksum of a file's bytes, which are read once, a part at a time."""
    with path.open("rb") as file:
        return f"{_FORM}{hashlib.file_digest(file, xxhash.xxh3_128).hexdigest()}"


def file_checksums(folder: Path, names: Iterable[str]) -> dict[str, str]:
    """Checksums of files by their names below a folder, with / between parts."""
    return {name: file_checksum(folder / name) for name in sorted(names)}


def check_files(folder: Path, names: Iterable[str], recorded: Any, *, remedy: str) -> None:
    """Compare files with what a record says of them; the first that differs is an error.

    recorded  the record's `files`; None in records of before, which say nothing of any file, and then nothing is
              compared. A name that a record does not have was not there when it was written.
    """
    if recorded is None:
        return
    for name in names:
        path = folder / name
        known = recorded.get(name) if isinstance(recorded, dict) else None
        if known is None:
            found = "none recorded"
        elif not path.is_file():
            found = "no file"
        elif file_checksum(path) == known:
            continue
        else:
            found = "others: it was damaged or changed"
        raise MagnetError(path, expected="the bytes that were written", found=found, remedy=remedy)


def append_checksum(path: Path) -> None:
    """Put the checksum of all bytes of a file at its end."""
    with path.open("r+b") as file:
        text = _digest_of_start(file, path.stat().st_size)
        file.seek(0, 2)
        file.write(text + _END)


def check_appended(path: Path, *, expected: str, remedy: str, is_required: bool = False) -> None:
    """Compare a file with the checksum at its end; one without is an error if it `is_required`, else taken as it is."""
    start = path.stat().st_size - 32 - len(_END)
    with path.open("rb") as file:
        file.seek(max(start, 0))
        text, end = file.read(32), file.read()
        has_checksum = start >= 0 and end == _END
        is_whole = _digest_of_start(file, start) == text if has_checksum else not is_required
    if not is_whole:
        raise MagnetError(path, expected=expected, found="bytes that do not match its checksum", remedy=remedy)


def _digest_of_start(file: BinaryIO, length: int) -> bytes:
    hasher = xxhash.xxh3_128()
    file.seek(0)
    while length > 0 and (part := file.read(min(length, _PART))):
        hasher.update(part)
        length -= len(part)
    return hasher.hexdigest().encode()

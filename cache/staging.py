"""Copies of a store's files on this machine's own disk: LMDB reads pages at random, at which a network's disk is slow.

In: an open file of a store, and a folder in the environment variable `MAGNET_HD_STAGE_TO`. Out: the same file, opened
from a copy there. A copy is compared with its source when it is made, reused while the source has the same size and
time, and removed when it was not used for a month, or sooner where the newer ones need its room.
"""

import hashlib
import os
import shutil
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import xxhash

from cache.fingerprint import digest
from cache.lock import FileLock
from cache.reader import ArrayFile
from magnet_core.console import human_bytes, notice
from magnet_core.errors import MagnetError
from magnet_core.files import replacing
from magnet_core.paths import STAGE_TO

STAGE_GIB = "MAGNET_HD_STAGE_GIB"
UNUSED_DAYS = 30.0  # after which a copy goes
KEPT_FREE = 0.05  # of the disk
GIB, DAY = 2**30, 86400.0
_PART = 1 << 24

Clock = Callable[[], float]  # seconds since the epoch


def staged(file: ArrayFile) -> ArrayFile:
    """Return the file opened from a copy on this machine, or as it is where none is asked for or there is no room."""
    folder = os.environ.get(STAGE_TO)
    if not folder:
        return file
    copy = copy_of(file.path, Path(folder), most_bytes=most_bytes())
    if copy is None:
        return file
    file.close()
    return ArrayFile(copy)


def most_bytes() -> float:
    """What all copies together may take, by the environment variable `MAGNET_HD_STAGE_GIB`; without it, the disk's."""
    given = os.environ.get(STAGE_GIB, "inf")
    try:
        most = float(given)
    except ValueError:
        most = -1.0
    if not most >= 0:
        raise MagnetError(STAGE_GIB, expected="a number of GiB", found=f"'{given}'", remedy="correct or unset it")
    return most * GIB


def copy_of(source: Path, folder: Path, *, most_bytes: float = float("inf"), clock: Clock = time.time) -> Path | None:
    """Return a whole copy of a file in a folder, made if there is none; None where it would not fit."""
    stat = source.stat()
    key = digest({"path": str(source.resolve()), "size": stat.st_size, "time": stat.st_mtime_ns})
    copy = folder / f"{source.parent.name}-{source.stem}-{key}{source.suffix}"
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(copy.with_name(f"{copy.name}.lock"))
    lock.acquire(wait=True)
    try:
        if not copy.exists():
            if not make_room(folder, stat.st_size, most_bytes=most_bytes, now=clock()):
                notice(f"{source}: read where it is, as {folder} has no room for {human_bytes(stat.st_size)}")
                return None
            copy_checked(source, copy)
        os.utime(copy, (clock(), clock()))  # when it was last used
    finally:
        lock.release()
    return copy


def copy_checked(source: Path, copy: Path) -> None:
    """Copy a file, and compare what was written with what was read."""
    hasher = xxhash.xxh3_128()
    with replacing(copy) as partial:
        with source.open("rb") as read, partial.open("wb") as written:
            while part := read.read(_PART):
                hasher.update(part)
                written.write(part)
            written.flush()
            os.fsync(written.fileno())
        with partial.open("rb") as written:
            same = hashlib.file_digest(written, xxhash.xxh3_128).hexdigest() == hasher.hexdigest()
        if not same:
            raise MagnetError(
                copy, expected=f"the bytes of {source}", found="others", remedy="check the disk, or name another folder"
            )


def make_room(folder: Path, nbytes: int, *, most_bytes: float, now: float) -> bool:
    """Remove copies that are long unused, then the least recently used until there is room; tells whether there is.

    One that is in use keeps its bytes until it is closed, and is read on.
    """
    copies = sorted(folder.glob("*.lmdb"), key=_last_used)
    sizes = {copy: copy.stat().st_size for copy in copies}

    def fits() -> bool:
        disk = shutil.disk_usage(folder)
        return nbytes + sum(sizes.values()) <= most_bytes and nbytes <= disk.free - KEPT_FREE * disk.total

    for copy in copies:
        if fits() and now - _last_used(copy) < UNUSED_DAYS * DAY:
            break
        with suppress(FileNotFoundError):
            copy.unlink()
        del sizes[copy]
    return fits()


def _last_used(copy: Path) -> float:
    try:
        return copy.stat().st_mtime
    except FileNotFoundError:  # another process has removed it
        return 0.0

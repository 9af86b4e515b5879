"""Files of the store as an earlier version wrote them, for tests of what is read back for ever."""

import os
from pathlib import Path

import lmdb

from cache.lmdb_file import used_bytes
from cache.schema import COMPLETE_KEY, SCHEMA_KEY


def change(path: Path, values: dict[bytes, bytes | None]) -> Path:
    """Put values into a finished file, past its checksums; None deletes."""
    size = path.stat().st_size + (1 << 20)
    with lmdb.open(os.fspath(path), subdir=False, lock=False, map_size=size) as env:
        with env.begin(write=True) as txn:
            for key, value in values.items():
                if value is None:
                    assert txn.delete(key)
                else:
                    txn.put(key, value)
        length = used_bytes(env)
    os.truncate(path, max(length, path.stat().st_size))
    return path


def as_version_1(path: Path) -> Path:
    """Turn a finished file into one of version 1, which has checksums of its blocks alone."""
    with lmdb.open(os.fspath(path), subdir=False, lock=False, readonly=True) as env, env.begin() as txn:
        checksums = [key for key, _ in txn.cursor() if key.startswith(b"check-")]
    return change(path, dict.fromkeys(checksums) | {SCHEMA_KEY: b"1", COMPLETE_KEY: b"1"})

"""The LMDB file itself, as reader and writer share it: opened and checked before a page of it is touched.

In: a path. Out: a read-only environment that is whole, its header and specs, and the faults of its blocks. Serves
design section "The store": anything but a finished, whole file of a known version counts as absent.
"""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import lmdb
import numpy as np
import xxhash

from cache.schema import (
    COMPLETE_KEY,
    HEADER_KEY,
    LEAD_BYTES,
    SCHEMA_KEY,
    SCHEMA_VERSION,
    SPEC_PREFIX,
    ArraySpec,
    block_key,
    check_key,
)
from magnet_core.errors import MagnetError

REDO = "delete it and run 'extract run' again"


class AbsentFileError(MagnetError):
    """There is no finished, whole cache file at a path."""


@contextmanager
def one_line_errors(path: Path, *, remedy: str) -> Iterator[None]:
    """Turn what LMDB or the file system reports (full disk, damaged page) into one line."""
    try:
        yield
    except (lmdb.Error, OSError) as error:
        raise MagnetError(path, expected="a working LMDB file", found=str(error), remedy=remedy) from error


def open_whole(path: Path) -> lmdb.Environment:
    """Open read-only, without LMDB's lock file. A missing, foreign or truncated file is an `AbsentFileError`.

    Reading past the end of a truncated file would end the process (SIGBUS): hence the length is checked first.
    """
    if not path.is_file():
        raise AbsentFileError(path, expected="a cache file", found="none", remedy="run 'extract run' to make it")
    if path.stat().st_size == 0:
        raise AbsentFileError(path, expected="an LMDB file", found="an empty file", remedy=REDO)
    try:
        env = lmdb.open(os.fspath(path), subdir=False, lock=False, readonly=True, max_dbs=0)
    except (lmdb.InvalidError, lmdb.CorruptedError, lmdb.VersionMismatchError) as error:
        raise AbsentFileError(path, expected="an LMDB file", found=str(error), remedy=REDO) from error
    except lmdb.Error as error:
        raise MagnetError(
            path, expected="a readable file", found=str(error), remedy="check its permissions and the disk"
        ) from error
    if path.stat().st_size < used_bytes(env):
        found = f"{path.stat().st_size} bytes, a truncated file"
        expected = f"at least {used_bytes(env)} bytes"
        env.close()
        raise AbsentFileError(path, expected=expected, found=found, remedy=REDO)
    return env


def used_bytes(env: lmdb.Environment) -> int:
    """Bytes up to the end of the last page that the file refers to."""
    return (env.info()["last_pgno"] + 1) * env.stat()["psize"]


def page_bytes(env: lmdb.Environment) -> int:
    """Bytes of a page; a value of at least a page lies in pages of its own."""
    return env.stat()["psize"]


def check_finished(path: Path, txn: lmdb.Transaction) -> None:
    """Raise unless the file carries its complete mark and a schema version that this release reads."""
    version = txn.get(SCHEMA_KEY)
    if version is not None and int(bytes(version)) > SCHEMA_VERSION:
        raise MagnetError(
            path,
            expected=f"schema version {SCHEMA_VERSION} or older",
            found=f"version {int(bytes(version))}",
            remedy="upgrade magnet-hd, or use the release that wrote the file",
        )
    if version is None or txn.get(COMPLETE_KEY) is None:
        raise AbsentFileError(
            path,
            expected="a finished cache file",
            found="no complete mark",
            remedy="run 'extract run' again; it resumes where it stopped",
        )


def read_header(txn: lmdb.Transaction) -> dict[str, Any]:
    """The header as its writer gave it."""
    header: dict[str, Any] = json.loads(bytes(txn.get(HEADER_KEY, default=b"{}")))
    return header


def read_specs(txn: lmdb.Transaction) -> dict[str, ArraySpec]:
    """All array specs by name, in the order of their names."""
    specs = {}
    cursor = txn.cursor()
    more = cursor.set_range(SPEC_PREFIX)
    while more and bytes(cursor.key()).startswith(SPEC_PREFIX):
        name = bytes(cursor.key())[len(SPEC_PREFIX) :].decode()
        specs[name] = ArraySpec.from_json(name, bytes(cursor.value()))
        more = cursor.next()
    return specs


def block_fault(txn: lmdb.Transaction, spec: ArraySpec, block: int) -> str | None:
    """What is wrong with one block, or None. `txn` must have been begun with buffers=True."""
    value = txn.get(block_key(spec.name, block))
    checksum = txn.get(check_key(spec.name, block))
    if value is None or checksum is None:
        return f"{spec.name}: block {block} of {spec.num_blocks} is missing"
    stored = value[LEAD_BYTES:][: spec.block_nbytes(block)]
    if len(stored) < spec.block_nbytes(block):
        return f"{spec.name}: block {block} holds {len(stored)} bytes of {spec.block_nbytes(block)}"
    if xxhash.xxh3_64_digest(stored) != bytes(checksum):
        return f"{spec.name}: block {block} does not match its checksum"
    return None


def block_payload(block: np.ndarray) -> memoryview:
    """The bytes of a block in C order; no copy where the block is contiguous."""
    return np.ascontiguousarray(block).reshape(-1).view(np.uint8).data

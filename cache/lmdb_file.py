"""The LMDB file itself, as reader and writer share it: opened and checked before a page of it is touched.

In: a path. Out: a read-only environment that is whole, its header and specs, and the faults of its blocks. Serves
design section "The store": a missing, unfinished or truncated file counts as absent, a damaged one is an error.
"""

import json
import os
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

import lmdb
import numpy as np
import xxhash

from cache.lmdb_pages import CutShortError, ForeignFileError, PageFaultError, check_pages
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
    checksum_key,
    spec_key,
)
from magnet_core.environment import known_fault
from magnet_core.errors import MagnetError, PlaceError, machine_error

REDO = "delete it and run 'extract run' again"

_VERSION = re.compile(rb"[1-9][0-9]{0,8}")
_SHOWN_BYTES = 80  # of a damaged value, in an error


class AbsentFileError(MagnetError):
    """There is no finished, whole cache file at a path."""


class DamagedFileError(MagnetError):
    """A part of a cache file is not as it was written."""


class _Fields(dict[str, Any]):
    """Fields of a header; one that is missing, as in a damaged file of version 1, is one line as well."""

    def __init__(self, path: Path, fields: dict[str, Any]) -> None:
        super().__init__(fields)
        self.path = path

    def __missing__(self, name: str) -> NoReturn:
        raise damaged(self.path, "header", found=f"none of its fields is '{name}'")


@contextmanager
def one_line_errors(path: Path, *, remedy: str) -> Iterator[None]:
    """Turn what LMDB or the file system reports (damaged page, no right to write) into one line.

    A full disk is a `PlaceError`. LMDB has classes for all that it finds in a file, and for that; a bare `lmdb.Error`
    is what else the system reports, such as a block of which a part alone was written. What the machine refuses has the
    words and the remedy of `magnet_core.environment`, all else the remedy that is given.
    """
    try:
        yield
    except (lmdb.Error, OSError) as error:
        if isinstance(error, lmdb.DiskError) or type(error) is lmdb.Error:
            raise PlaceError.of(error, where=path) from error
        if known_fault(error):
            raise machine_error(error, where=path) from error
        raise MagnetError(path, expected="a working LMDB file", found=str(error), remedy=remedy) from error


def open_whole(path: Path, *, writes: bool = False) -> lmdb.Environment:
    """Open read-only, without LMDB's lock file. A missing, foreign or truncated file is an `AbsentFileError`.

    LMDB would end the process on a truncated file or a damaged page: hence length and pages are checked first, those
    that only a writer relies on with `writes`.
    """
    if not path.is_file():
        raise AbsentFileError(path, expected="a cache file", found="none", remedy="run 'extract run' to make it")
    if path.stat().st_size == 0:
        raise AbsentFileError(path, expected="an LMDB file", found="an empty file", remedy=REDO)
    with one_line_errors(path, remedy="check its permissions and the disk"):
        _check_pages(path, writes=writes)
    try:
        env = lmdb.open(os.fspath(path), subdir=False, lock=False, readonly=True, max_dbs=0)
    except (lmdb.InvalidError, lmdb.CorruptedError, lmdb.VersionMismatchError) as error:
        raise AbsentFileError(path, expected="an LMDB file", found=str(error), remedy=REDO) from error
    except lmdb.Error as error:
        raise MagnetError(
            path, expected="a readable file", found=str(error), remedy="check its permissions and the disk"
        ) from error
    return env


def _check_pages(path: Path, *, writes: bool) -> None:
    """Say in one line what is wrong with the pages of a file."""
    try:
        check_pages(path, writes=writes)
    except ForeignFileError as error:
        raise AbsentFileError(path, expected="an LMDB file", found=str(error), remedy=REDO) from error
    except CutShortError as error:
        raise AbsentFileError(path, expected="all of the file", found=f"{error}, truncated", remedy=REDO) from error
    except PageFaultError as error:
        raise damaged(path, f"page {error.page}", found=error.found) from error


def used_bytes(env: lmdb.Environment) -> int:
    """Bytes up to the end of the last page that the file refers to."""
    return (env.info()["last_pgno"] + 1) * env.stat()["psize"]


def page_bytes(env: lmdb.Environment) -> int:
    """Bytes of a page; a value of at least a page lies in pages of its own."""
    return env.stat()["psize"]


def damaged(path: Path, part: str, *, found: str) -> DamagedFileError:
    """Return the error for a part of a file that is not as it was written."""
    return DamagedFileError(path, expected=f"its {part} as it was written", found=found, remedy=REDO)


def with_checksum(key: bytes, value: bytes) -> dict[bytes, bytes]:
    """Return a value and its checksum, under their keys."""
    return {key: value, checksum_key(key): xxhash.xxh3_64_digest(value)}


def specs_checksum(specs: Iterable[ArraySpec]) -> bytes:
    """Checksum over keys and values of all specs of a file, which tells when one is gone or was added."""
    stored = sorted((spec_key(spec.name), spec.to_json()) for spec in specs)
    return xxhash.xxh3_64_digest(b"".join(key + value for key, value in stored))


def read_contents(
    path: Path, env: lmdb.Environment, txn: lmdb.Transaction
) -> tuple[dict[str, Any], dict[str, ArraySpec]]:
    """Header and array specs of a finished file; a part that is not as it was written is an error that names it.

    A file of version 1 has no checksums of them, but what it states has to make sense and to fit the file. Raises
    `AbsentFileError` for a file without its complete mark, `MagnetError` for damage and for a newer schema version.
    """
    version, complete = _read_version(path, txn), txn.get(COMPLETE_KEY)
    if version is None or complete is None:
        resumes = path.suffix == ".partial"
        raise AbsentFileError(
            path,
            expected="a finished cache file",
            found="no schema version" if version is None else "no complete mark",
            remedy="run 'extract run' again; it resumes where it stopped" if resumes else REDO,
        )
    header = _read_header(path, txn, version)
    specs = read_specs(path, txn, version)
    if version > 1 and bytes(complete) != specs_checksum(specs.values()):
        raise damaged(path, "list of arrays", found="one that does not match its checksum")
    held = used_bytes(env)
    for spec in specs.values():
        if spec.num_blocks * LEAD_BYTES + spec.nbytes > held:
            found = f"{spec.num_blocks} blocks of {spec.nbytes} bytes in all, more than the file holds"
            raise damaged(path, f"spec of '{spec.name}'", found=found)
    return header, specs


def read_specs(path: Path, txn: lmdb.Transaction, version: int) -> dict[str, ArraySpec]:
    """All array specs by name, in the order of their names; a damaged one is an error."""
    specs = {}
    cursor = txn.cursor()
    more = cursor.set_range(SPEC_PREFIX)
    while more and bytes(cursor.key()).startswith(SPEC_PREFIX):
        key = bytes(cursor.key())
        name = key[len(SPEC_PREFIX) :].decode(errors="replace")
        stored = _checked(path, txn, key, part=f"spec of '{name}'", needs_checksum=version > 1)
        spec = ArraySpec.from_json(name, stored)
        if spec is None:
            raise damaged(path, f"spec of '{name}'", found=_shown(stored))
        specs[name] = spec
        more = cursor.next()
    return specs


def _read_version(path: Path, txn: lmdb.Transaction) -> int | None:
    """Return the schema version, None where there is none; damage and a newer version are told apart."""
    stored = txn.get(SCHEMA_KEY)
    if stored is None:
        return None
    digits = bytes(stored)
    version = int(digits) if _VERSION.fullmatch(digits) else 0
    _checked(path, txn, SCHEMA_KEY, part="schema version", needs_checksum=1 < version <= SCHEMA_VERSION)
    if version == 0:
        raise damaged(path, "schema version", found=_shown(digits))
    if version > SCHEMA_VERSION:
        raise MagnetError(
            path,
            expected=f"schema version {SCHEMA_VERSION} or older",
            found=f"version {version}",
            remedy="upgrade magnet-hd, or use the release that wrote the file",
        )
    return version


def _read_header(path: Path, txn: lmdb.Transaction, version: int) -> dict[str, Any]:
    """Return the header as its writer gave it."""
    stored = _checked(path, txn, HEADER_KEY, part="header", needs_checksum=version > 1)
    try:
        header = json.loads(stored, object_hook=partial(_Fields, path))
    except (ValueError, RecursionError) as error:
        raise damaged(path, "header", found=f"{error}: {_shown(stored)}") from error
    if not isinstance(header, _Fields):
        raise damaged(path, "header", found=_shown(stored))
    return header


def _checked(path: Path, txn: lmdb.Transaction, key: bytes, *, part: str, needs_checksum: bool) -> bytes:
    """Return a value, compared with its checksum where it has one."""
    stored, checksum = txn.get(key), txn.get(checksum_key(key))
    if stored is None or (checksum is None and needs_checksum):
        raise damaged(path, part, found="none" if stored is None else "no checksum of it")
    if checksum is not None and xxhash.xxh3_64_digest(stored) != bytes(checksum):
        raise damaged(path, part, found="one that does not match its checksum")
    return bytes(stored)


def _shown(stored: bytes) -> str:
    """The beginning of a damaged value, fit for one line."""
    return repr(stored[:_SHOWN_BYTES].decode(errors="replace"))


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

"""Write a cache file that is either finished and checked, or absent. Serves design section "The store".

In: a path, a header, arrays block by block. Out: the finished file at the path. Until then the work lies in
`<path>.partial`, each block in its own transaction, and a later run with the same header resumes there. Of a block that
takes long to fill, the rows that are there can be saved before it is full (`cache.begun`).
"""

import json
import os
from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import lmdb
import numpy as np
import numpy.typing as npt
import xxhash

from cache.begun import BEGUN_PREFIX, CHOICE_PREFIX, begun_prefix, begun_value, drop, read_begun
from cache.canonical import canonical_json
from cache.lmdb_file import (
    AbsentFileError,
    DamagedFileError,
    block_fault,
    block_payload,
    one_line_errors,
    open_whole,
    page_bytes,
    read_contents,
    read_specs,
    specs_checksum,
    used_bytes,
    with_checksum,
)
from cache.lock import FileLock
from cache.schema import (
    COMPLETE_KEY,
    HEADER_KEY,
    LEAD_BYTES,
    SCHEMA_KEY,
    SCHEMA_VERSION,
    ArraySpec,
    block_key,
    check_key,
    encode_text,
    make_spec,
    spec_key,
)
from magnet_core.errors import MagnetError
from magnet_core.files import sync
from magnet_core.registry import look_up

# N rows of an array, B rows of a block, ... the shape of one row

SPARE_BYTES = 16 << 20  # room in the map for keys, checksums and B-tree pages
RESUME = "check the disk, and run again; finished blocks are kept"


def partial_path(path: str | Path) -> Path:
    """Return the path of the unfinished work for `path`."""
    return Path(f"{path}.partial")


class ArrayWriter:
    """The one writer of a cache file, in one process, as a context manager.

    A partial file with the identical header (canonical JSON) and schema version is resumed; any other is started
    afresh. Leaving without `commit` keeps the partial file. A second live writer is a one-line error that
    names the first.
    """

    def __init__(self, path: str | Path, header: Mapping[str, object]) -> None:
        self.path = Path(path)
        self.partial = partial_path(path)
        self._header = canonical_json(header)
        self._lock = FileLock(Path(f"{path}.lock"))
        self._env: lmdb.Environment | None = None
        self._specs: dict[str, ArraySpec] = {}

    @property
    def header(self) -> dict[str, Any]:
        """The header as it will be read back."""
        header: dict[str, Any] = json.loads(self._header)
        return header

    def __enter__(self) -> Self:
        with one_line_errors(self.partial, remedy="check that the folder can be written to"):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            acquired = self._lock.acquire(wait=False)
        if not acquired:
            raise MagnetError(
                self.path,
                expected="one writer",
                found=f"another one: {self._lock.owner()}",
                remedy="wait for it to end, or stop it; its finished blocks are kept",
            )
        with ExitStack() as undo:
            undo.callback(self._close)
            self._open()
            undo.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._close()

    def declare(
        self, name: str, shape: tuple[int, ...], dtype: npt.DTypeLike, *, block_rows: int | None = None
    ) -> ArraySpec:
        """Declare an array's shape (N, ...) and dtype before its blocks; a resumed run declares it again.

        Text of dtype 'U<n>' holds n UTF-8 bytes a value; `put` finds n by itself.
        """
        spec = make_spec(name, tuple(shape), dtype=dtype, block_rows=block_rows)
        declared = self._specs.get(name)
        if declared is not None and declared != spec:
            raise MagnetError(
                f"{self.partial}: {name}",
                expected=f"{declared.shape} {declared.dtype} in blocks of {declared.block_rows}, as declared before",
                found=f"{spec.shape} {spec.dtype} in blocks of {spec.block_rows}",
                remedy=f"delete {self.partial.name}, or put what differs into the header",
            )
        if declared is None:
            self._specs[name] = spec
            self._reserve(spec.nbytes + 3 * spec.num_blocks * page_bytes(self._open_env()))
            self._put(with_checksum(spec_key(name), spec.to_json()))
        return spec

    def block_rows(self, name: str, block: int) -> slice:
        """Rows that belong to one block."""
        return self._spec(name).block_slice(block)

    def missing_blocks(self, name: str) -> list[int]:
        """Blocks of a declared array that are not yet written."""
        spec = self._spec(name)
        with self._open_env().begin(buffers=True) as txn:
            return [block for block in range(spec.num_blocks) if txn.get(check_key(name, block)) is None]

    def put_block(self, name: str, block: int, rows: np.ndarray) -> None:
        """Write one block (B, ...) with its checksum, in one transaction that is on disk when this returns."""
        self.put_blocks(block, {name: rows})

    def put_blocks(self, block: int, rows: Mapping[str, np.ndarray]) -> None:
        """Write the same block of some arrays, each (B, ...), in one transaction: all of them, or none."""
        page = page_bytes(self._open_env())
        values: dict[bytes, bytes] = {}
        for name, block_rows in rows.items():
            spec = self._spec(name)
            payload = block_payload(self._stored_form(spec, block, np.asarray(block_rows)))
            fill = bytes(max(page - LEAD_BYTES - payload.nbytes, 0))
            values[block_key(name, block)] = b"".join((bytes(LEAD_BYTES), payload, fill))
            values[check_key(name, block)] = xxhash.xxh3_64_digest(payload)
        self._put(values, without=[begun_prefix(name, block) for name in rows])

    def save_rows(self, block: int, first_row: int, rows: Mapping[str, np.ndarray]) -> None:
        """Save rows (n, ...) of some arrays of a block that is not full, from its row `first_row` on, all or none."""
        values = {}
        for name, some in rows.items():
            payload = block_payload(self._stored_form(self._spec(name), block, np.asarray(some), count=len(some)))
            values[begun_prefix(name, block) + b"%08d" % first_row] = begun_value(payload)
        self._put(values)

    def saved_rows(self, name: str, block: int) -> np.ndarray:
        """Rows (n, ...) of a block that an earlier run has saved before it was full, from its first row on."""
        spec = self._spec(name)
        with self._open_env().begin(buffers=True) as txn:
            return read_begun(txn, spec, block)

    def keep_choice(self, name: str, chosen: int) -> int:
        """Return what the run that began this file chose under a name; of a new one, keep `chosen`."""
        key = CHOICE_PREFIX + name.encode()
        with self._open_env().begin() as txn:
            kept = txn.get(key)
        if kept is not None and kept.isdigit():
            return int(kept)
        self._put({key: str(chosen).encode()})
        return chosen

    def put(self, name: str, array: np.ndarray) -> None:
        """Write all blocks of an array (N, ...) that are still missing; declare the array first if necessary."""
        array = np.asarray(array)
        if name not in self._specs:
            text = array.dtype.kind == "U"
            self.declare(name, array.shape, f"U{encode_text(array).dtype.itemsize}" if text else array.dtype)
        if array.shape != self._spec(name).shape:
            raise self._mismatch(name, f"shape {self._spec(name).shape}", str(array.shape))
        for block in self.missing_blocks(name):
            self.put_block(name, block, array[self.block_rows(name, block)])

    def commit(self) -> None:
        """Check all against the checksums, mark the file complete, sync it, close it, and give it its name.

        Damaged blocks are dropped, so that the next run writes them again. Damaged and missing blocks are an error.
        """
        env = self._open_env()
        self._check_blocks(env)
        complete = {COMPLETE_KEY: specs_checksum(self._specs.values())}
        self._put(complete, without=[BEGUN_PREFIX, CHOICE_PREFIX])
        with one_line_errors(self.partial, remedy=RESUME):
            with env.begin(buffers=True) as txn:
                read_contents(self.partial, env, txn)
            env.sync(True)
            length = used_bytes(env)
            env.close()
            self._env = None
            if self.partial.stat().st_size < length:  # LMDB may count a last page that it never wrote
                os.truncate(self.partial, length)
            sync(self.partial)
            self.partial.replace(self.path)
            sync(self.path.parent)
        self._close()

    def _open(self) -> None:
        """Open the partial file: resume it where it fits, start afresh where it does not."""
        if not self._resumable():
            self.partial.unlink(missing_ok=True)
        size = self.partial.stat().st_size if self.partial.exists() else 0
        with one_line_errors(self.partial, remedy=RESUME):
            self._env = lmdb.open(
                os.fspath(self.partial),
                subdir=False,
                lock=False,  # the flock above keeps others out, also on network file systems
                metasync=False,
                max_dbs=0,
                map_size=size + SPARE_BYTES,
            )
            with self._env.begin(write=True) as txn:
                for key, value in self._begun_with().items():
                    txn.put(key, value)
                txn.delete(COMPLETE_KEY)
                self._specs = read_specs(self.partial, txn, SCHEMA_VERSION)

    def _resumable(self) -> bool:
        """Whether the partial file is whole, begun with this header and schema version, and its specs are intact."""
        try:
            env = open_whole(self.partial, writes=True)
        except (AbsentFileError, DamagedFileError):  # what cannot be read is not started afresh
            return False
        try:
            with env, env.begin() as txn:
                if any(txn.get(key) != value for key, value in self._begun_with().items()):
                    return False
                read_specs(self.partial, txn, SCHEMA_VERSION)
        except (lmdb.Error, MagnetError):
            return False
        return True

    def _begun_with(self) -> dict[bytes, bytes]:
        """Schema version and header with their checksums, which a file that is resumed holds as they are here."""
        version = str(SCHEMA_VERSION).encode()
        return with_checksum(SCHEMA_KEY, version) | with_checksum(HEADER_KEY, self._header.encode())

    def _check_blocks(self, env: lmdb.Environment) -> None:
        faulty: dict[tuple[str, int], str] = {}
        with one_line_errors(self.partial, remedy=f"delete {self.partial.name} and run again"):
            with env.begin(buffers=True) as txn:
                for spec in self._specs.values():
                    for block in range(spec.num_blocks):
                        if fault := block_fault(txn, spec, block):
                            faulty[spec.name, block] = fault
            with env.begin(write=True) as txn:
                for name, block in faulty:
                    txn.delete(block_key(name, block))
                    txn.delete(check_key(name, block))
        if faulty:
            first = next(iter(faulty.values()))
            raise MagnetError(
                self.partial,
                expected="every block, matching its checksum",
                found=f"{len(faulty)} that are not; {first}",
                remedy="run again; only these blocks are written anew",
            )

    def _stored_form(self, spec: ArraySpec, block: int, rows: np.ndarray, *, count: int | None = None) -> np.ndarray:
        """The block, or `count` rows of it, as stored, after shape and dtype are checked; nothing is cast silently."""
        where = f"{spec.name}, block {block}"
        shape = spec.block_shape(block) if count is None else (count, *spec.shape[1:])
        if rows.shape != shape:
            raise self._mismatch(where, f"shape {shape}", str(rows.shape))
        stored = np.dtype(spec.dtype)
        if spec.text and rows.dtype.kind == "U":
            rows = encode_text(rows)
            if rows.dtype.itemsize > stored.itemsize:
                raise self._mismatch(
                    where, f"text of at most {stored.itemsize} UTF-8 bytes", f"{rows.dtype.itemsize} bytes"
                )
            return rows.astype(stored)
        if rows.dtype.newbyteorder("<") != stored:
            raise self._mismatch(where, f"dtype {stored}", str(rows.dtype))
        return rows.astype(stored, copy=False)

    def _mismatch(self, where: str, expected: str, found: str) -> MagnetError:
        return MagnetError(
            f"{self.path}: {where}",
            expected=expected,
            found=found,
            remedy="declare what is written, or convert it explicitly",
        )

    def _spec(self, name: str) -> ArraySpec:
        return look_up(self._specs, name, where=f"{self.path}: declared array")

    def _open_env(self) -> lmdb.Environment:
        if self._env is None:
            raise MagnetError(
                self.path,
                expected="an open writer",
                found="a closed one",
                remedy="use it inside its 'with' block, before commit",
            )
        return self._env

    def _reserve(self, nbytes: int) -> None:
        """Grow the map to `nbytes` past the last used page, which is safe as only this process has the file open."""
        env = self._open_env()
        needed = used_bytes(env) + nbytes
        if needed > env.info()["map_size"]:
            with one_line_errors(self.partial, remedy=RESUME):
                env.set_mapsize(needed + SPARE_BYTES)

    def _put(self, values: Mapping[bytes, bytes], *, without: Iterable[bytes] = ()) -> None:
        """Write values, and delete all keys that begin with one of `without`, in one transaction."""
        self._reserve(sum(map(len, values.values())) + 64 * len(values) * page_bytes(self._open_env()))
        with one_line_errors(self.partial, remedy=RESUME), self._open_env().begin(write=True) as txn:
            for prefix in without:
                drop(txn, prefix)
            for key, value in values.items():
                txn.put(key, value)

    def _close(self) -> None:
        if self._env is not None:
            self._env.close()
            self._env = None
        self._lock.release()

"""Read a finished cache file. In: its path. Out: its header and arrays, whole, in slices, in blocks or row by row.

Serves design section "The store". Blocks lie in the file as they lie in memory, so reading is a view of the map. A
gather of rows is one NumPy fancy index over a strided view that has a row wherever a block has one.
"""

import weakref
from collections.abc import Iterable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import lmdb
import numpy as np

from cache.lmdb_file import (
    REDO,
    AbsentFileError,
    block_fault,
    one_line_errors,
    open_whole,
    read_contents,
    used_bytes,
)
from cache.schema import LEAD_BYTES, ArraySpec, block_key, decode_text
from magnet_core.errors import MagnetError
from magnet_core.registry import look_up

# N rows of an array, R rows asked for, ... the shape of one row

_VERIFY = "run 'cache verify', delete the file it names and run 'extract run' again"


class _MapSpan:
    """A part of the map as NumPy sees it; arrays over it keep the part, and so the map, alive."""

    def __init__(self, address: int, nbytes: int, keeps: lmdb.Transaction) -> None:
        self.keeps = keeps
        self.__array_interface__ = {
            "version": 3,
            "shape": (nbytes,),
            "typestr": "|u1",
            "data": (address, True),  # True: read-only
        }


class _MappedArray:
    """One array in the map: its blocks, and all its rows as one strided view.

    Blocks lie apart, each row at its block's start plus a multiple of the row's bytes. With `unit`, the greatest
    common divisor of all these distances, every row starts at a whole number of units: the view has one entry per unit.
    Only entries that are rows are ever looked at.
    """

    def __init__(self, spec: ArraySpec, txn: lmdb.Transaction) -> None:
        self.spec = spec
        self.dtype = np.dtype(spec.dtype)
        if spec.nbytes == 0:
            self.span = np.frombuffer(b"", np.uint8)
            self.starts = np.zeros(spec.num_blocks, np.int64)
            self.block_shift, self.row_units = self.starts, 0
            self.units = np.empty((int(spec.rows > 0), *spec.shape[1:]), self.dtype)
            return
        address = np.array([_address(txn, spec, block) for block in range(spec.num_blocks)], np.int64)
        first = int(address.min())
        self.starts = address - first
        block_ends = self.starts + [spec.block_nbytes(block) for block in range(spec.num_blocks)]
        self.span = np.asarray(_MapSpan(first, int(block_ends.max()), txn))
        unit = int(np.gcd.reduce(np.append(self.starts, spec.row_bytes)))
        self.row_units = spec.row_bytes // unit
        # A row starts at unit row * row_units + the shift of its block.
        self.block_shift = self.starts // unit - np.arange(spec.num_blocks) * spec.block_rows * self.row_units
        inner = np.empty((1, *spec.shape[1:]), self.dtype).strides[1:]
        self.units = np.ndarray(
            ((self.span.size - spec.row_bytes) // unit + 1, *spec.shape[1:]),
            dtype=self.dtype,
            buffer=self.span,
            strides=(unit, *inner),
        )

    def gather(self, rows: np.ndarray) -> np.ndarray:
        """Copy rows (R,) into (R, ...)."""
        shift = self.block_shift.take(rows // self.spec.block_rows)
        return self.units[rows * self.row_units + shift]

    def block(self, block: int) -> np.ndarray:
        """Read-only view of one block."""
        shape = self.spec.block_shape(block)
        return np.ndarray(shape, self.dtype, buffer=self.span, offset=int(self.starts[block]))

    def slice(self, lo: int, hi: int) -> np.ndarray:
        """Copy rows lo to hi into (hi - lo, ...)."""
        out = np.empty((hi - lo, *self.spec.shape[1:]), self.dtype)
        step = self.spec.block_rows
        for block in range(lo // step, -(-hi // step)):
            start, stop = max(lo, block * step), min(hi, (block + 1) * step)
            out[start - lo : stop - lo] = self.block(block)[start - block * step : stop - block * step]
        return out


class _FileMap:
    """A finished file in one long-lived read transaction."""

    def __init__(self, path: Path) -> None:
        self.env = open_whole(path)
        with ExitStack() as undo, one_line_errors(path, remedy=REDO):
            undo.callback(self.env.close)
            self.txn = self.env.begin(buffers=True)
            self.header, self.specs = read_contents(path, self.env, self.txn)
            undo.pop_all()
        self.arrays: dict[str, _MappedArray] = {}


# LMDB lets a process open a file once: readers of one file share its map, which closes with the last of them.
_open_maps: weakref.WeakValueDictionary[tuple[int, int], _FileMap] = weakref.WeakValueDictionary()


class ArrayFile:
    """A finished cache file, read-only.

    May be pickled (it reopens by path in the other process) and used after a fork (the child inherits the map, which
    needs no lock). Arrays that are views of the file stay valid after `close`. Opening compares the checksums of schema
    version, header and specs; it raises `AbsentFileError` for a file that is missing, unfinished, truncated or not
    LMDB, and `MagnetError` for one that is damaged or of a newer schema version.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._map: _FileMap | None = None
        self._file_map()

    def __enter__(self) -> "ArrayFile":
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def __getstate__(self) -> dict[str, Any]:
        return {"path": self.path, "_map": None}

    @property
    def header(self) -> dict[str, Any]:
        """The header that the writer was given."""
        return self._file_map().header

    def names(self) -> list[str]:
        """Names of the arrays, sorted."""
        return list(self._file_map().specs)

    def spec(self, name: str) -> ArraySpec:
        """Return shape, dtype and blocks of one array; an unknown name is an error that lists near names."""
        return look_up(self._file_map().specs, name, where=f"{self.path}: array")

    def read(self, name: str) -> np.ndarray:
        """Copy of a whole array (N, ...)."""
        return self.slice(name, 0, self.spec(name).rows)

    def slice(self, name: str, lo: int, hi: int) -> np.ndarray:
        """Copy of rows lo to hi, (hi - lo, ...)."""
        spec = self.spec(name)
        if not 0 <= lo <= hi <= spec.rows:
            raise self._out_of_range(spec, f"{lo}:{hi}")
        return _readable(spec, self._array(name).slice(lo, hi))

    def block(self, name: str, block: int) -> np.ndarray:
        """Read-only view of one row block, without a copy; text is decoded and so copied."""
        return _readable(self.spec(name), self._array(name).block(block))

    def gather(self, name: str, rows: np.ndarray) -> np.ndarray:
        """Copy of rows (R,) int, in the order asked and as often as asked, into (R, ...)."""
        array, rows = self._array(name), np.asarray(rows, np.int64)
        if (
            rows.size and np.maximum.reduce(rows.view(np.uint64)) >= array.spec.rows
        ):  # a negative row reads as a huge one
            raise self._out_of_range(array.spec, f"{rows.min()} to {rows.max()}")
        return _readable(array.spec, array.gather(rows))

    def verify(self, names: Iterable[str] | None = None) -> list[str]:
        """Read every block and list what is wrong: truncation, missing blocks, checksums that do not match.

        `names` are the arrays to read; all, if not given.
        """
        file_map = self._file_map()
        with one_line_errors(self.path, remedy="check the disk"):
            length = self.path.stat().st_size
        if length < used_bytes(file_map.env):
            return [f"truncated to {length} bytes of {used_bytes(file_map.env)}"]
        faults: list[str] = []
        for spec in file_map.specs.values() if names is None else map(self.spec, names):
            try:
                block_faults = (block_fault(file_map.txn, spec, block) for block in range(spec.num_blocks))
                faults += [fault for fault in block_faults if fault]
            except lmdb.Error as error:
                faults.append(f"{spec.name}: {error}")
        return faults

    def require_intact(self, names: Iterable[str]) -> None:
        """Verify these arrays; a fault is an error that names the block."""
        faults = self.verify(names)
        if faults:
            raise MagnetError(
                self.path,
                expected="every block as it was written",
                found=faults[0] + (f"; {len(faults) - 1} more faults" if len(faults) > 1 else ""),
                remedy=REDO,
            )

    def close(self) -> None:
        """Close the file; it opens again when it is used again."""
        self._map = None

    def _file_map(self) -> _FileMap:
        if self._map is None:
            self._map = _shared_map(self.path)
        return self._map

    def _array(self, name: str) -> _MappedArray:
        file_map = self._file_map()
        array = file_map.arrays.get(name)
        if array is None:
            with one_line_errors(self.path, remedy=REDO):
                array = file_map.arrays[name] = _MappedArray(self.spec(name), file_map.txn)
        return array

    def _out_of_range(self, spec: ArraySpec, found: str) -> MagnetError:
        return MagnetError(
            f"{self.path}: {spec.name}",
            expected=f"rows within 0:{spec.rows}",
            found=found,
            remedy="the rows belong to another file; check which slide they index",
        )


def is_complete(path: str | Path) -> bool:
    """Whether a finished, whole cache file lies at `path`."""
    try:
        ArrayFile(path).close()
    except AbsentFileError:
        return False
    return True


def _shared_map(path: Path) -> _FileMap:
    """Open a file, or take the map through which this process already reads it."""
    if not path.is_file():
        return _FileMap(path)  # raises, with the remedy
    status = path.stat()
    key = (status.st_dev, status.st_ino)
    file_map = _open_maps.get(key)
    if file_map is None:
        file_map = _open_maps[key] = _FileMap(path)
    return file_map


def _address(txn: lmdb.Transaction, spec: ArraySpec, block: int) -> int:
    """Where a block lies in memory."""
    value = txn.get(block_key(spec.name, block))
    if value is None or len(value) < LEAD_BYTES + spec.block_nbytes(block):
        raise MagnetError(
            spec.name,
            expected=f"{LEAD_BYTES + spec.block_nbytes(block)} bytes for block {block}",
            found="none" if value is None else str(len(value)),
            remedy=_VERIFY,
        )
    return int(np.frombuffer(value, np.uint8).__array_interface__["data"][0]) + LEAD_BYTES


def _readable(spec: ArraySpec, values: np.ndarray) -> np.ndarray:
    try:
        return decode_text(values) if spec.text else values
    except UnicodeDecodeError as error:
        raise MagnetError(spec.name, expected="text in UTF-8", found=str(error), remedy=_VERIFY) from error

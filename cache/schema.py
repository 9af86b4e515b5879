"""What a cache file holds: named arrays in row blocks, inside one LMDB file. Serves design section "The store".

In: the name, shape and dtype of an array. Out: an `ArraySpec`, which says how the array is cut into blocks, and the
keys under which LMDB holds them.

    schema                   schema version, decimal
    header                   canonical JSON, written by the owner of the file
    spec/<name>              canonical JSON of the ArraySpec
    check-<key>              xxh3_64 of the value of schema, header or spec/<name>
    block/<name>/<block>     4,080 zero bytes, then the bytes of one row block, C order, little-endian
    check/<name>/<block>     xxh3_64 of the bytes of the block
    complete                 written last, xxh3_64 over keys and values of all specs; a file without it counts as absent

Version 1 has no check-<key>, and b"1" for complete. Every later version keeps schema and check-schema as they are here,
so that a damaged version number is told from a newer one.

LMDB gives a value of a page or more pages of its own, and starts it 16 bytes past a page boundary. The zero bytes
bring the rows to the boundary, so that any dtype is read in place, aligned, and a row of 4 KiB touches one page and not
two. A shorter value is filled up with zeros to a page.
"""

import json
import math
import re
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from magnet_core.errors import MagnetError

# N rows, ... the shape of one row

SCHEMA_VERSION = 2  # how a file holds its arrays; every version up to this one is read

# What the arrays hold, as the digests that name geometry and features state it. It rises when equal settings no longer
# give equal arrays (other rows, other units, another meaning), and then all stores have to be extracted anew. It stays
# when only the form of the file changes.
CONTENT_VERSION = 1

SCHEMA_KEY = b"schema"
HEADER_KEY = b"header"
COMPLETE_KEY = b"complete"
SPEC_PREFIX = b"spec/"

LEAD_BYTES = 4096 - 16  # zero bytes before the rows in the value of a block

USUAL_BLOCK_ROWS = 1024
SMALL_BLOCK_BYTES = 1 << 20
LARGE_BLOCK_BYTES = 8 << 20

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.\-/]{0,199}")
_STORED_KINDS = "biufcS"  # fixed-width values without references
_DTYPE = re.compile(rf"[<|][{_STORED_KINDS}][1-9][0-9]{{0,9}}")
_MAX_AXES = 32  # NumPy has 64
_MAX_BYTES = 1 << 62


@dataclass(frozen=True)
class ArraySpec:
    """How one array of N rows is stored.

    shape       (N, ...); row blocks are cut along the first axis
    dtype       as stored, a NumPy string such as '<f2'
    block_rows  rows of a block; the last block may hold fewer
    text        the values are text, stored as UTF-8 of fixed width ('S<bytes>') and read as np.str_
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    block_rows: int
    text: bool = False

    @property
    def rows(self) -> int:
        """N."""
        return self.shape[0]

    @property
    def row_bytes(self) -> int:
        """Bytes of one row."""
        return math.prod(self.shape[1:]) * np.dtype(self.dtype).itemsize

    @property
    def nbytes(self) -> int:
        """Bytes of all rows."""
        return self.rows * self.row_bytes

    @property
    def num_blocks(self) -> int:
        """Number of row blocks; 0 for an array without rows."""
        return -(-self.rows // self.block_rows)

    def block_slice(self, block: int) -> slice:
        """Rows of one block."""
        if not 0 <= block < self.num_blocks:
            raise MagnetError(
                self.name,
                expected=f"a block below {self.num_blocks}",
                found=f"block {block}",
                remedy="ask missing_blocks() or the spec for the blocks there are",
            )
        return slice(block * self.block_rows, min((block + 1) * self.block_rows, self.rows))

    def block_nbytes(self, block: int) -> int:
        """Bytes of the rows of one block."""
        rows = self.block_slice(block)
        return int(rows.stop - rows.start) * self.row_bytes

    def block_shape(self, block: int) -> tuple[int, ...]:
        """Shape of one block, (rows of the block, ...)."""
        rows = self.block_slice(block)
        return (rows.stop - rows.start, *self.shape[1:])

    def to_json(self) -> bytes:
        """Canonical JSON, as stored; spelt directly, as each opening of a file compares it."""
        shape = ",".join(map(str, self.shape))
        text = "true" if self.text else "false"
        return f'{{"block_rows":{self.block_rows},"dtype":"{self.dtype}","shape":[{shape}],"text":{text}}}'.encode()

    @classmethod
    def from_json(cls, name: str, stored: bytes) -> "ArraySpec | None":
        """Rebuild a spec from its stored form; None unless `make_spec` gives a spec that is stored as just these bytes.

        Damage is anything, so nothing of it reaches NumPy: no foreign byte order, negative axis or absurd size.
        """
        try:
            fields: dict[str, Any] = json.loads(stored)
            dtype, shape = fields["dtype"], tuple(fields["shape"])
            if not _DTYPE.fullmatch(dtype):
                return None
            given = f"U{dtype[2:]}" if fields["text"] else dtype
            spec = make_spec(name, shape, dtype=given, block_rows=fields["block_rows"])
        except (ValueError, KeyError, TypeError, OverflowError, RecursionError, MagnetError):
            return None
        return spec if spec.to_json() == stored else None


def make_spec(name: str, shape: tuple[int, ...], *, dtype: npt.DTypeLike, block_rows: int | None = None) -> ArraySpec:
    """Check name, shape and dtype, and choose the block size where none is given.

    A text dtype 'U<n>' is stored as UTF-8 in n bytes: n must cover the bytes of the longest value, which for ASCII are
    its characters.
    """
    if not _NAME.fullmatch(name):
        raise MagnetError(
            f"array '{name}'",
            expected="a name of letters, digits and _ . - /, at most 200 long",
            found=repr(name),
            remedy="rename the array",
        )
    if not 1 <= len(shape) <= _MAX_AXES or min(shape) < 0:
        raise MagnetError(
            name, expected="a shape (N, ...)", found=str(tuple(shape)), remedy=f"give 1 to {_MAX_AXES} axes, rows first"
        )
    given = np.dtype(dtype)
    text = given.kind == "U"
    stored = np.dtype(f"S{max(given.itemsize // 4, 1)}") if text else given.newbyteorder("<")
    if stored.kind not in _STORED_KINDS or stored.itemsize == 0:
        raise MagnetError(
            name,
            expected="numbers, booleans or fixed-width text",
            found=f"dtype {given}",
            remedy="convert the array before it is stored",
        )
    if math.prod(max(int(axis), 1) for axis in shape) * stored.itemsize > _MAX_BYTES:
        raise MagnetError(
            name, expected="an array that memory could hold", found=f"shape {shape}", remedy="check what is stored"
        )
    rows = default_block_rows(math.prod(shape[1:]) * stored.itemsize) if block_rows is None else block_rows
    if rows < 1:
        raise MagnetError(
            name, expected="block_rows of 1 or more", found=str(rows), remedy="leave block_rows out for the default"
        )
    return ArraySpec(name, tuple(int(axis) for axis in shape), stored.str, int(rows), text=text)


def default_block_rows(row_bytes: int) -> int:
    """Rows of a block from the bytes of a row alone: 1,024, doubled up to 1 MiB or halved down to 8 MiB a block.

    A larger block costs a killed run more work, a smaller one costs a transaction and a sync per few bytes.
    """
    rows = USUAL_BLOCK_ROWS
    while rows * max(row_bytes, 1) < SMALL_BLOCK_BYTES:
        rows *= 2
    while rows > 1 and rows * row_bytes > LARGE_BLOCK_BYTES:
        rows //= 2
    return rows


def spec_key(name: str) -> bytes:
    """Key of an array's spec."""
    return SPEC_PREFIX + name.encode()


def checksum_key(key: bytes) -> bytes:
    """Key of the checksum of the schema version, the header or a spec."""
    return b"check-" + key


def block_key(name: str, block: int) -> bytes:
    """Key of one row block."""
    return f"block/{name}/{block:08d}".encode()


def check_key(name: str, block: int) -> bytes:
    """Key of one row block's checksum."""
    return f"check/{name}/{block:08d}".encode()


def encode_text(values: np.ndarray) -> np.ndarray:
    """UTF-8 of np.str_ values as fixed-width bytes, as wide as the longest needs."""
    return np.char.encode(values, "utf-8") if values.size else values.astype("S1")


def decode_text(stored: np.ndarray) -> np.ndarray:
    """np.str_ values of fixed-width UTF-8 bytes; a copy."""
    return np.char.decode(stored, "utf-8") if stored.size else stored.astype("U1")

"""Rows of blocks that are not full yet, in an unfinished file: what a run that is killed has done of them stays.

In: a write transaction, rows of a block as they come. Out: the same rows for the run that goes on. Each saving adds one
key, so that nothing is written twice but the block itself:

    begun/<name>/<block>/<row>   xxh3_64 of the bytes, then the bytes of the rows of the block from <row> on, C order
    choice/<name>                a whole number, decimal, that a run chose and its resumption keeps to

They go with the block that they are of, once it is written whole; a finished file has none of them.
"""

import lmdb
import numpy as np
import xxhash

from cache.schema import ArraySpec

# n rows of a block, ... the shape of one row

BEGUN_PREFIX, CHOICE_PREFIX = b"begun/", b"choice/"
_CHECKSUM_BYTES = 8


def begun_prefix(name: str, block: int) -> bytes:
    """Return how the keys of the saved rows of a block begin."""
    return BEGUN_PREFIX + f"{name}/{block:08d}/".encode()


def begun_value(payload: memoryview) -> bytes:
    """Return the value that saves the bytes of some rows."""
    return b"".join((xxhash.xxh3_64_digest(payload), payload))


def read_begun(txn: lmdb.Transaction, spec: ArraySpec, block: int) -> np.ndarray:
    """Return the saved rows (n, ...) of a block from its first one on, as far as they follow each other undamaged."""
    prefix, pieces, rows = begun_prefix(spec.name, block), [b""], 0
    while (value := txn.get(prefix + b"%08d" % rows)) is not None:
        checksum, payload = bytes(value[:_CHECKSUM_BYTES]), bytes(value[_CHECKSUM_BYTES:])
        if not payload or len(payload) % spec.row_bytes or xxhash.xxh3_64_digest(payload) != checksum:
            break
        pieces.append(payload)
        rows += len(payload) // spec.row_bytes
    return np.frombuffer(b"".join(pieces), np.dtype(spec.dtype)).reshape(rows, *spec.shape[1:])


def drop(txn: lmdb.Transaction, prefix: bytes) -> None:
    """Delete all keys that begin so."""
    cursor = txn.cursor()
    while cursor.set_range(prefix) and bytes(cursor.key()).startswith(prefix):
        cursor.delete()

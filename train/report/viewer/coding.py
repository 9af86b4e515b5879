"""Arrays and texts as compact words of a page, which a browser unpacks without a library.

In: arrays. Out: base64 of zlib-compressed bytes, little-endian, all first bytes before all second ones: neighbours
resemble each other most in their high bytes. `show.js` reads them.
"""

import base64
import zlib
from collections.abc import Sequence

import numpy as np

LARGEST = float(np.finfo(np.float16).max)


def coded_values(arrays: Sequence[np.ndarray]) -> str:
    """Arrays (N,) one after the other as float16, right to one part in 2,000; beyond 65,504 they end there."""
    values = np.concatenate(arrays).astype(np.float32)
    return _coded(np.clip(values, -LARGEST, LARGEST).astype("<f2"))


def coded_rows(rows: np.ndarray) -> str:
    """Rows (H, W) int32 as steps from each to the next, as neighbours mostly follow each other."""
    return _coded(np.diff(rows.ravel(), prepend=np.int32(0)).astype("<i4"))


def coded_text(text: str) -> str:
    """UTF-8 text."""
    return _packed(text.encode())


def _coded(values: np.ndarray) -> str:
    planes = values.view(np.uint8).reshape(len(values), values.itemsize).T
    return _packed(planes.tobytes())


def _packed(content: bytes) -> str:
    return base64.b64encode(zlib.compress(content, 6)).decode("ascii")

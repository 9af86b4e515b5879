"""JSON of one spelling, so that equal settings are equal bytes. Serves the headers and digests of the store.

In: plain values, nested. Out: canonical JSON text.
"""

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from magnet_core.errors import MagnetError


def canonical_json(value: object) -> str:
    """JSON of one spelling: keys sorted, no blanks, no NaN; tuples become lists and paths become text.

    NumPy scalars count as the Python numbers they are. Keys that are not text, sets and other objects are a
    `MagnetError`, because their spelling is not fixed.
    """
    return json.dumps(_plain(value), sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def _plain(value: object) -> object:
    """Turn a value into what JSON spells in one way."""
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, Mapping) and all(isinstance(key, str) for key in value):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, Path):
        return value.as_posix()
    finite = not isinstance(value, float) or np.isfinite(value)
    if value is None or (isinstance(value, str | int | float) and finite):
        return value
    raise MagnetError(
        "settings",
        expected="text, finite numbers, booleans, lists and mappings with text keys",
        found=f"{type(value).__name__} {value!r}",
        remedy="convert it before it is stored or fingerprinted",
    )

"""Names of genes and barcodes as files have them: text of any alphabet, of a length that names have.

In: a column of text. Out: an array of np.str_, whose memory is that of its longest value for every one: a single value
of megabytes would fill a machine, and a store.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from magnet_core.errors import MagnetError

LONGEST = 256  # characters; the longest real gene names have some 60


def short_texts(path: Path, values: Sequence[str] | np.ndarray, *, what: str) -> np.ndarray:
    """Return texts (N,) as np.str_; one longer than any name is an error."""
    longest = max(map(len, values), default=0)
    if longest > LONGEST:
        raise MagnetError(
            path,
            expected=f"{what} of at most {LONGEST} characters",
            found=f"one of {longest:,}",
            remedy="copy the file again, or correct it where it was made",
        )
    return np.array(values, dtype=np.str_)

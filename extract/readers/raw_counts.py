"""Raw counts of whatever type a file stores them in: whole numbers from 0 on, which a count of molecules is.

In: the values of a file, as integers or as floating point, which Python tools write even for whole numbers. Out: the
same numbers as int32, or one line about the first that is no count.
"""

from pathlib import Path

import numpy as np

from magnet_core.errors import MagnetError

MOST = 1_000_000  # of one gene in one spot or bin: no cell has as many molecules, and sums over a region fit int32


def whole_counts(path: Path, values: np.ndarray, *, what: str = "counts") -> np.ndarray:
    """Return values as int32; one that is no whole number from 0 to `MOST` is an error that shows it."""
    if values.dtype.kind not in "iuf":
        raise MagnetError(
            path,
            expected=f"raw {what}, whole numbers from 0 on",
            found=f"values of type {values.dtype}",
            remedy="give the raw counts as they were published",
        )
    is_bounded = not values.size or bool(values.min() >= 0 and values.max() <= MOST)  # never for NaN
    if is_bounded and (values.dtype.kind != "f" or bool((values == np.rint(values)).all())):
        return values.astype(np.int32, copy=False)
    wrong = values[~((values >= 0) & (values <= MOST) & (values == np.rint(values)))].flat[0]
    if wrong > MOST and np.isfinite(wrong):
        expected, remedy = f"at most {MOST:,} molecules of a gene in one place", "copy the file again"
    else:
        expected, remedy = "whole numbers from 0 on", "give raw counts; normalisation is a setting of training"
    raise MagnetError(
        path,
        expected=f"raw {what}, {expected}",
        found=f"{wrong:.4g}{'' if wrong > MOST else ': they are normalised or scaled'}",
        remedy=remedy,
    )

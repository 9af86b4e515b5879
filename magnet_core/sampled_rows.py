"""Which rows of a slide stand for all of them where a mean and a standard deviation are taken."""

import numpy as np

SCALE_ROWS = 4096  # evenly spaced rows are enough for a mean and a standard deviation


def scale_rows(num_rows: int) -> np.ndarray:
    """Return up to `SCALE_ROWS` of so many rows, evenly spaced and sorted, int64."""
    return np.unique(np.linspace(0, num_rows - 1, min(num_rows, SCALE_ROWS)).astype(np.int64))

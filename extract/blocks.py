"""Regroups runs of patches into the row ranges in which they are encoded and written.

In: runs of rows in order, with gaps where rows are there already. Out: whole ranges, (slice, (n, p, p, 3) uint8). A
range is a batch of the encoder or a block of the store; batches never straddle a block, so that a resumed run encodes
the same patches together as one that was never stopped.
"""

from collections.abc import Iterator, Sequence

import numpy as np


def batches_in_blocks(blocks: Sequence[slice], batch_size: int) -> list[slice]:
    """Cut row blocks into batches of at most `batch_size` rows that stay inside their block."""
    return [
        slice(start, min(start + batch_size, block.stop))
        for block in blocks
        for start in range(block.start, block.stop, batch_size)
    ]


def rows_in(ranges: Sequence[slice], num_rows: int) -> np.ndarray:
    """Mask (N,) bool of the rows inside any of the ranges."""
    mask = np.zeros(num_rows, dtype=bool)
    for rows in ranges:
        mask[rows] = True
    return mask


class Regrouper:
    """Collects runs of rows until each of the given ranges is whole. Ranges are sorted and do not overlap."""

    def __init__(self, ranges: Sequence[slice]) -> None:
        self._ranges = list(ranges)
        self._position = 0
        self._filled = 0
        self._buffer: np.ndarray | None = None

    def begun(self) -> tuple[slice, np.ndarray] | None:
        """Return the rows that the range at hand has so far, and their values, (slice, (n, ...)); None of a new one.

        The values do not change any more.
        """
        if self._buffer is None:
            return None
        first = self._ranges[self._position].start
        return slice(first, first + self._filled), self._buffer[: self._filled]

    def add(self, first_row: int, values: np.ndarray) -> Iterator[tuple[slice, np.ndarray]]:
        """Take rows `first_row, first_row + 1, …`; yield each range that they complete."""
        taken = 0
        while taken < len(values) and self._position < len(self._ranges):
            rows = self._ranges[self._position]
            row = first_row + taken
            if row < rows.start:  # not wanted here
                taken += min(rows.start - row, len(values) - taken)
                continue
            if self._buffer is None:
                self._buffer = np.empty((rows.stop - rows.start, *values.shape[1:]), dtype=values.dtype)
            count = min(rows.stop - row, len(values) - taken)
            self._buffer[row - rows.start : row - rows.start + count] = values[taken : taken + count]
            taken += count
            self._filled += count
            if self._filled == rows.stop - rows.start:
                yield rows, self._buffer
                self._position, self._filled, self._buffer = self._position + 1, 0, None

"""Writing beside encoding: row blocks go to a store file in a thread of their own, a few at a time.

In: blocks from the sinks. Out: an `ArrayWriter` that has them all once `flush` returns. A fault of the disk is raised
in the thread that hands over the next block, or by `flush`.
"""

from collections import deque
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from types import TracebackType
from typing import Self

import numpy as np

from cache.writer import ArrayWriter

_PENDING = 4  # blocks in memory that wait to be written


class BackgroundWriter:
    """Hands blocks of one or more `ArrayWriter`s to one writing thread, and waits when it falls behind."""

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(max_workers=1)
        self._pending: deque[Future[None]] = deque()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._thread.shutdown(wait=True, cancel_futures=kind is not None)

    def put_blocks(self, writer: ArrayWriter, block: int, rows: Mapping[str, np.ndarray]) -> None:
        """Write the same block of some arrays soon; `rows` must not change any more."""
        self._submit(partial(writer.put_blocks, block, rows))

    def save_rows(self, writer: ArrayWriter, block: int, first_row: int, rows: Mapping[str, np.ndarray]) -> None:
        """Save rows of a block that is not full soon; `rows` must not change any more."""
        self._submit(partial(writer.save_rows, block, first_row, rows))

    def _submit(self, write: Callable[[], None]) -> None:
        while len(self._pending) >= _PENDING:
            self._pending.popleft().result()
        self._pending.append(self._thread.submit(write))

    def flush(self) -> None:
        """Wait until all blocks are written."""
        while self._pending:
            self._pending.popleft().result()

"""Recently decoded tiles and strips, so that neighbouring windows do not decode their common ones twice.

In: a key and how to load it. Out: the decoded segment. Bounded in bytes; threads that want one segment at the same
time decode it once.
"""

from collections import OrderedDict
from collections.abc import Callable, Hashable
from threading import Lock

import numpy as np

NUM_LOADING_LOCKS = 64  # two segments that share one by chance only wait for each other


class SegmentCache:
    """The segments used last, up to `budget_bytes`; the newest is kept even if it alone is larger."""

    def __init__(self, budget_bytes: int) -> None:
        self._budget_bytes = budget_bytes
        self._held_bytes = 0
        self._segments: OrderedDict[Hashable, np.ndarray] = OrderedDict()
        self._lock = Lock()
        self._loading = [Lock() for _ in range(NUM_LOADING_LOCKS)]

    def get(self, key: Hashable, load: Callable[[], np.ndarray]) -> np.ndarray:
        """Return the segment of `key`, loaded if it is not held. It is shared: not to be written to."""
        segment = self._find(key)
        if segment is not None:
            return segment
        with self._loading[hash(key) % NUM_LOADING_LOCKS]:
            segment = self._find(key)  # another thread may have loaded it meanwhile
            if segment is None:
                segment = load()
                self._keep(key, segment)
            return segment

    def clear(self) -> None:
        """Forget every segment."""
        with self._lock:
            self._segments.clear()
            self._held_bytes = 0

    def _find(self, key: Hashable) -> np.ndarray | None:
        with self._lock:
            if key in self._segments:
                self._segments.move_to_end(key)
            return self._segments.get(key)

    def _keep(self, key: Hashable, segment: np.ndarray) -> None:
        with self._lock:
            self._segments[key] = segment
            self._held_bytes += segment.nbytes
            while self._held_bytes > self._budget_bytes and len(self._segments) > 1:
                self._held_bytes -= self._segments.popitem(last=False)[1].nbytes

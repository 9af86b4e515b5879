"""Recently decoded tiles and strips, so that neighbouring windows do not decode their common ones twice.

In: a key and how to load it. Out: the decoded segment. Bounded in bytes; safe for threads.
"""

from collections import OrderedDict
from collections.abc import Callable, Hashable
from threading import Lock

import numpy as np


class SegmentCache:
    """The segments used last, up to `budget_bytes`; the newest is kept even if it alone is larger."""

    def __init__(self, budget_bytes: int) -> None:
        self._budget_bytes = budget_bytes
        self._held_bytes = 0
        self._segments: OrderedDict[Hashable, np.ndarray] = OrderedDict()
        self._lock = Lock()

    def get(self, key: Hashable, load: Callable[[], np.ndarray]) -> np.ndarray:
        """Return the segment of `key`, loading it if it is not held. Loading is outside the lock: decoding is slow."""
        with self._lock:
            if key in self._segments:
                self._segments.move_to_end(key)
                return self._segments[key]
        segment = load()
        with self._lock:
            if key not in self._segments:
                self._segments[key] = segment
                self._held_bytes += segment.nbytes
            while self._held_bytes > self._budget_bytes and len(self._segments) > 1:
                self._held_bytes -= self._segments.popitem(last=False)[1].nbytes
        return segment

    def clear(self) -> None:
        """Forget every segment."""
        with self._lock:
            self._segments.clear()
            self._held_bytes = 0

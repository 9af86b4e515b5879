"""What the cache of decoded segments holds, and that threads share one decoding."""

import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from magnet_core.slides.segment_cache import SegmentCache


def test_it_keeps_what_was_used_last_within_its_budget() -> None:
    cache, loaded = SegmentCache(budget_bytes=30), []

    def get(key: int, num_bytes: int = 10) -> None:
        def load() -> np.ndarray:
            loaded.append(key)
            return np.full(num_bytes, key, np.uint8)

        assert (cache.get(key, load) == key).all()

    for key in (1, 2, 3, 1, 4, 1, 3, 2):  # 4 puts out 2, the one not used for longest; then 2 puts out 4
        get(key)
    assert loaded == [1, 2, 3, 4, 2]
    get(9, num_bytes=100)
    get(9, num_bytes=100)
    assert loaded == [1, 2, 3, 4, 2, 9]  # larger than the budget, yet not decoded for every window
    cache.clear()
    get(9, num_bytes=100)
    assert loaded[-2:] == [9, 9]


def test_threads_that_want_one_segment_load_it_once() -> None:
    cache, loads = SegmentCache(budget_bytes=100), []

    def load() -> np.ndarray:
        loads.append(1)
        time.sleep(0.05)
        return np.zeros(4, np.uint8)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda _: cache.get("strip", load), range(8)))
    assert len(loads) == 1

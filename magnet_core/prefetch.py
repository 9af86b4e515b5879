"""Doing the next piece of work while this one is used: an iterator that runs ahead in a thread.

In: any iterator. Out: the same items in the same order, at most `depth` of them made before they are asked for. A fault
of the iterator is raised where its item would have come.
"""

from collections import deque
from collections.abc import Generator, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

Item = TypeVar("Item")

_END: Any = object()


def read_ahead(items: Iterable[Item], *, depth: int = 2) -> Generator[Item]:
    """Yield the items of an iterable that is run in a thread of its own; leaving early stops the thread."""
    iterator = iter(items)
    with ThreadPoolExecutor(max_workers=1) as thread:
        ahead = deque(thread.submit(next, iterator, _END) for _ in range(depth))
        try:
            while (item := ahead.popleft().result()) is not _END:
                ahead.append(thread.submit(next, iterator, _END))
                yield item
        finally:
            for piece in ahead:
                piece.cancel()
            if isinstance(iterator, Generator):
                thread.submit(iterator.close).result()

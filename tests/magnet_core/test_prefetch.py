"""The same items in the same order, made ahead of their use, and no thread or open generator left behind."""

import threading
from collections.abc import Iterator

import pytest

from magnet_core.prefetch import read_ahead


def test_items_come_in_order_and_all_of_them() -> None:
    assert list(read_ahead(range(100), depth=3)) == list(range(100))
    assert list(read_ahead([])) == []


def test_the_next_item_is_made_while_one_is_used() -> None:
    made = threading.Event()

    def items() -> Iterator[int]:
        yield 0
        made.set()
        yield 1

    ahead = read_ahead(items())
    assert next(ahead) == 0
    assert made.wait(timeout=60)
    assert list(ahead) == [1]


def test_no_more_than_the_depth_is_made_ahead() -> None:
    taken = []

    def items() -> Iterator[int]:
        for number in range(100):
            taken.append(number)
            yield number

    ahead = read_ahead(items(), depth=3)
    next(ahead)
    ahead.close()
    assert len(taken) <= 1 + 3


def test_a_fault_is_raised_where_its_item_would_have_come() -> None:
    def items() -> Iterator[int]:
        yield 0
        raise ValueError("here")

    ahead = read_ahead(items(), depth=5)
    assert next(ahead) == 0
    with pytest.raises(ValueError, match="here"):
        next(ahead)


def test_leaving_early_closes_the_iterator_and_ends_the_thread() -> None:
    closed = []

    def items() -> Iterator[int]:
        try:
            yield from range(100)
        finally:
            closed.append(True)

    before = threading.active_count()
    ahead = read_ahead(items())
    next(ahead)
    ahead.close()
    assert closed == [True]
    assert threading.active_count() == before

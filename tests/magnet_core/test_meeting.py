"""Processes of a start meet each other alone, whatever those before them left in the store."""

from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest
from torch.distributed import DistError, HashStore, Store

from magnet_core.meeting import meet

PATIENCE = timedelta(seconds=20)


def start(store: Store, size: int) -> list[Store]:
    with ThreadPoolExecutor(size) as pool:
        return list(pool.map(lambda rank: meet(store, rank, size, PATIENCE), range(size)))


@pytest.mark.parametrize("size", [1, 2, 5])
def test_every_start_has_keys_of_its_own_that_all_of_it_share(size: int) -> None:
    store = HashStore()
    before = start(store, size)
    before[0].set("address", "of the dead")
    after = start(store, size)
    assert not any(part.check(["address"]) for part in after)
    after[-1].set("address", "of the living")
    assert [part.get("address") for part in after] == [b"of the living"] * size
    assert before[-1].get("address") == b"of the dead"


def test_who_came_and_died_before_the_first_was_there_is_not_waited_for() -> None:
    store = HashStore()
    store.set("meeting/here/1", "the name of one that has died")
    parts = start(store, 2)
    parts[0].set("met", "yes")
    assert parts[1].get("met") == b"yes"


def test_the_patience_ends_where_no_first_one_comes() -> None:
    with pytest.raises(DistError):
        meet(HashStore(), rank=1, size=2, patience=timedelta(seconds=0.2))

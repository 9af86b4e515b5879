"""How the processes that torchrun has started find each other, also those of a restart.

In: the key-value store that torchrun serves. Out: a part of it that only the processes now alive read and write.

torchrun keeps one store over all its restarts, whose keys (where a process can be reached) are those of the processes
before, so that now and then one is called that is dead (pytorch issue 135712). Its count of restarts does not tell them
apart: every node counts its own. So each process brings a name that none had before, and the first answers to those.
"""

import time
import uuid
from datetime import timedelta

from torch.distributed import PrefixStore, Store

ASK_EVERY = 0.05  # seconds


def meet(store: Store, rank: int, size: int, patience: timedelta) -> Store:
    """Return the part of the store that the processes of this start have to themselves.

    Raises:
        torch.distributed.DistError: the others did not come, or the store is gone.
    """
    store.set_timeout(patience)
    own = uuid.uuid4().hex
    if rank == 0:
        _answer(store, own, size, patience)
        return PrefixStore(own, store)
    store.set(f"meeting/here/{rank}", own)
    first = store.get(f"meeting/answer/{own}").decode()  # waits for it
    store.add(f"meeting/heard/{first}", 1)
    return PrefixStore(first, store)


def _answer(store: Store, own: str, size: int, patience: timedelta) -> None:
    """Answer to whoever is here, until as many have heard it: a name left behind by the dead is answered in vain."""
    until = time.monotonic() + patience.total_seconds()
    while store.add(f"meeting/heard/{own}", 0) < size - 1 and time.monotonic() < until:
        for rank in range(1, size):
            here = f"meeting/here/{rank}"
            if store.check([here]):
                store.set(f"meeting/answer/{store.get(here).decode()}", own)
        time.sleep(ASK_EVERY)

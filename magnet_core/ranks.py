"""One training that several processes compute together, each on a GPU of its own, as `torchrun` starts them.

In: the environment that torchrun leaves. Out: which of them this process is, its share of the rows of a subgraph, and
the features of all rows. What the processes share out is the encoder, by far the most of a step; graph, heads and loss
are computed by each of them on all rows, so that a step is the one that a single process takes, whatever the loss.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from magnet_core.errors import MagnetError
from magnet_core.meeting import meet
from magnet_core.torchrun import started_together

# N rows of all processes, n of each, D features

PATIENCE = timedelta(days=1)  # of those who wait for the first process; torchrun ends all when one ends
LOST = ("gloo", "NCCL", "Connection closed by peer", "Connection reset by peer")  # in what their libraries say

Value = TypeVar("Value")


@dataclass(frozen=True)
class Ranks:
    """Which of how many processes this one is; alone, nothing is exchanged."""

    rank: int = 0
    size: int = 1

    @property
    def is_first(self) -> bool:
        """Whether this process writes what is kept, and says how things go."""
        return self.rank == 0

    def share(self, rows: np.ndarray) -> np.ndarray:
        """Return this process's part (n,) of rows (N,): of the same size for all, so that the last row may repeat."""
        of_each = -(-len(rows) // self.size)
        part: np.ndarray = rows[np.arange(self.rank * of_each, (self.rank + 1) * of_each).clip(max=len(rows) - 1)]
        return part

    def gather(self, part: Tensor, num_rows: int) -> Tensor:
        """Return the features (N, D) of all rows from those (n, D) of each process's share.

        Every process is to compute the same loss from them; gradients reach the part multiplied by the number of
        processes, so that their mean over processes is that of a single one.
        """
        if self.size == 1:
            return part
        gathered: Tensor = _Gather.apply(part, self)
        return gathered[:num_rows]

    def agree(self, value: Value) -> Value:
        """Return the first process's value, in all of them."""
        if self.size == 1:
            return value
        values: list[Any] = [value]
        dist.broadcast_object_list(values, src=0, device=torch.device("cpu"))
        agreed: Value = values[0]
        return agreed

    def any(self, flag: bool) -> bool:
        """Whether the flag is set in any process."""
        if self.size == 1:
            return flag
        flags = torch.tensor([int(flag)])
        dist.all_reduce(flags, op=dist.ReduceOp.MAX)
        return bool(flags)

    def parallel(self, module: nn.Module) -> nn.Module:
        """Return a module whose gradients are the mean over processes, each summed up while others are computed."""
        if self.size == 1:
            return module
        # A level that a slide lacks has no loss, and its parameters no gradient.
        return DistributedDataParallel(module, find_unused_parameters=True, gradient_as_bucket_view=True)

    @torch.no_grad()
    def copy_first(self, tensors: list[Tensor]) -> None:
        """Overwrite tensors by those of the first process."""
        for tensor in tensors if self.size > 1 else ():
            dist.broadcast(tensor, src=0)


def ranks() -> Ranks:
    """Return which of the processes that compute together this one is."""
    if not (dist.is_available() and dist.is_initialized()):
        return Ranks()
    return Ranks(dist.get_rank(), dist.get_world_size())


@contextmanager
def together() -> Iterator[Ranks]:
    """Join the processes that torchrun has started, if it has; one that is lost ends the others with one line.

    A GPU of each process becomes torch's current one, which `cuda` means; where there are none they talk by gloo.
    """
    if not started_together():
        yield Ranks()
        return
    if torch.cuda.is_available():
        torch.cuda.set_device(_own_gpu())
    with _telling_of_the_lost():
        store, rank, size = next(dist.rendezvous("env://"))
        dist.init_process_group(store=meet(store, rank, size, PATIENCE), rank=rank, world_size=size, timeout=PATIENCE)
        try:
            yield ranks()
        finally:
            dist.destroy_process_group()


def _own_gpu() -> int:
    number, num_gpus = int(os.environ["LOCAL_RANK"]), torch.cuda.device_count()
    if number >= num_gpus:
        raise MagnetError(
            "torchrun",
            expected=f"at most as many processes on a node as it has GPUs ({num_gpus})",
            found=f"process {number + 1} of {os.environ.get('LOCAL_WORLD_SIZE', '?')}",
            remedy="lower --nproc-per-node, or set CUDA_VISIBLE_DEVICES= and --device cpu",
        )
    return number


@contextmanager
def _telling_of_the_lost() -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:
        if not isinstance(error, dist.DistError) and not any(word in str(error) for word in LOST):
            raise
        raise MagnetError(
            f"process {int(os.environ['RANK']) + 1} of {os.environ['WORLD_SIZE']}",
            expected="to hear from all others",
            found="that one has ended",
            remedy="look above for what it said, and give the command again: it goes on at its last checkpoint; "
            "torchrun --max-restarts 3 does so by itself",
        ) from error


class _Gather(torch.autograd.Function):
    """Parts (n, D) of all processes, one below the other (N, D); each gets the gradient of its own."""

    @staticmethod
    def forward(context: Any, part: Tensor, of: Ranks) -> Tensor:
        context.of, context.of_each = of, len(part)
        parts = [torch.empty_like(part, memory_format=torch.contiguous_format) for _ in range(of.size)]
        dist.all_gather(parts, part.contiguous())
        return torch.cat(parts)

    @staticmethod
    def backward(context: Any, gradient: Tensor) -> tuple[Tensor, None]:
        of, of_each = context.of, context.of_each
        return gradient[of.rank * of_each : (of.rank + 1) * of_each] * of.size, None

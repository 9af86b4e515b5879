"""Whether torchrun has started this process beside others, which one training alone is made for.

In: the environment. Out: yes or no, or an error. Imports nothing that takes long; see `magnet_core.ranks`.
"""

import os

from magnet_core.errors import MagnetError


def started_together() -> bool:
    """Whether torchrun has started this process beside others."""
    return "TORCHELASTIC_RUN_ID" in os.environ and int(os.environ.get("WORLD_SIZE", "1")) > 1


def refuse_torchrun() -> None:
    """Refuse to do all of a command's work in each of several processes."""
    if started_together():
        raise MagnetError(
            "torchrun",
            expected="train fit, one training that processes share",
            found="a command whose work is spread otherwise",
            remedy="leave torchrun out, and give --jobs, --engine or --shard",
        )

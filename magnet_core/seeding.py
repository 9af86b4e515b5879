"""Randomness: generators are passed in; the global seeds are set here and nowhere else."""

import random
import zlib

import numpy as np
import torch


def seed_everything(seed: int) -> None:
    """Seed Python, NumPy and torch once, at the start of a command."""
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)


def named_rng(seed: int, *names: str) -> np.random.Generator:
    """Return a generator that depends on the seed and on what it is for, not on the order of calls.

    `named_rng(0, "P1", "bins")` gives slide P1 the same bins whichever slides are processed before it.
    """
    return np.random.default_rng([seed, *(zlib.crc32(name.encode()) for name in names)])

"""Randomness: generators are passed in; what they draw depends on a seed and on what they are for."""

import zlib

import numpy as np


def named_rng(seed: int, *names: str) -> np.random.Generator:
    """Return a generator that depends on the seed and on what it is for, not on the order of calls.

    `named_rng(0, "P1", "bins")` gives slide P1 the same bins whichever slides are processed before it.
    """
    return np.random.default_rng([seed, *(zlib.crc32(name.encode()) for name in names)])

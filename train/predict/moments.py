"""Mean and standard deviation of the predictions of several models, added one at a time.

In: arrays of one shape. Out: their mean, and the sd between them, which needs two more arrays of that shape, however
many there are.
"""

import numpy as np


class Moments:
    """Adds up arrays; the first one given is changed by those that follow."""

    def __init__(self) -> None:
        self._count = 0
        self._mean = np.empty(0)
        self._squares = np.empty(0)

    def add(self, values: np.ndarray) -> None:
        """Add one array."""
        self._count += 1
        if self._count == 1:
            self._mean = values
            return
        if self._count == 2:
            self._squares = np.zeros_like(self._mean)
        from_before = values - self._mean
        self._mean += from_before / self._count
        self._squares += from_before * (values - self._mean)

    @property
    def mean(self) -> np.ndarray:
        """The mean of all that were added."""
        return self._mean

    def deviation(self) -> np.ndarray | None:
        """Standard deviation, of a sample: the divisor is one less than the number; None of a single array."""
        if self._count < 2:
            return None
        deviation: np.ndarray = np.sqrt(self._squares / (self._count - 1))
        return deviation

"""The bytes that a pass over a slide would write, known before it begins.

In: the arrays that its sinks declare. Out: their bytes; nothing touches the disk.
"""

from pathlib import Path

import numpy.typing as npt

from cache.schema import ArraySpec, make_spec
from cache.writer import ArrayWriter


class DeclaredBytes(ArrayWriter):
    """A writer that adds up the bytes of the arrays declared to it and never touches the disk."""

    def __init__(self) -> None:
        super().__init__(Path("plan"), {})
        self.nbytes = 0

    def declare(
        self, name: str, shape: tuple[int, ...], dtype: npt.DTypeLike, *, block_rows: int | None = None
    ) -> ArraySpec:
        """Count the bytes of an array."""
        spec = self._specs[name] = make_spec(name, tuple(shape), dtype=dtype, block_rows=block_rows)
        self.nbytes += spec.nbytes
        return spec

    def missing_blocks(self, name: str) -> list[int]:
        """No blocks, as none are ever written."""
        return []

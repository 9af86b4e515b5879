"""A part of the work, for jobs that are started without an engine, such as those of an array of Slurm."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self, TypeVar

from magnet_core.errors import MagnetError

Item = TypeVar("Item")


@dataclass(frozen=True)
class Shard:
    """Part `number`, from 1, of `count`: every so-manyth item. The parts of all numbers are all items, each once."""

    number: int
    count: int

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read '2/8'."""
        match = re.fullmatch(r"(\d{1,9})/(\d{1,9})", text.strip())
        if match is None or not 1 <= int(match[1]) <= int(match[2]):
            raise MagnetError(
                "--shard",
                expected="I/N, a part from 1 to N, such as 2/8",
                found=f"'{text}'",
                remedy="of an array of Slurm: --array=1-8 and --shard $SLURM_ARRAY_TASK_ID/8",
            )
        return cls(int(match[1]), int(match[2]))

    def of(self, items: Sequence[Item]) -> list[Item]:
        """Return the items of this part, in their order."""
        return list(items[self.number - 1 :: self.count])

    def __str__(self) -> str:
        return f"{self.number}/{self.count}"

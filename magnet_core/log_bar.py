"""What a progress bar is where no terminal shows it, as in a job's log: a plain line now and then.

In: how far the work is. Out: lines on stderr such as `S1  1234/5678 patches  22 %  2 min left`, and never a carriage
return.
"""

import sys
import time
from collections.abc import Iterable, Iterator, Sized
from typing import Any, Self

EVERY_S = 20.0  # between two lines
MINUTE, HOUR = 60, 3600


class LogBar:
    """Takes what `tqdm` takes as far as this project uses it, and has its methods.

    A line is written every `EVERY_S` seconds and at the end; work that is not to leave anything on a terminal
    (`leave=False`) and took less time writes none. Of steps that are not `even` no time left is said.
    """

    def __init__(
        self,
        iterable: Iterable[Any] = (),
        *,
        desc: str = "",
        total: int | None = None,
        unit: str = "it",
        initial: int = 0,
        leave: bool | None = True,
        disable: bool = False,
        even: bool = True,
    ) -> None:
        self.total = len(iterable) if total is None and isinstance(iterable, Sized) and len(iterable) else total
        self.n = initial
        self.disable = disable
        self._iterable = iterable
        self._desc = desc
        self._unit = unit
        self._initial = initial
        self._leave = leave is not False
        self._even = even
        self._postfix = ""
        self._start = self._said = time.monotonic()

    def __iter__(self) -> Iterator[Any]:
        try:
            for item in self._iterable:
                yield item
                self.update()
        finally:
            self.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def update(self, n: int = 1) -> None:
        """Count some more as done."""
        self.n += n
        if not self.disable and time.monotonic() - self._said >= EVERY_S:
            self._say(self.line())

    def set_postfix_str(self, text: str = "", refresh: bool = True) -> None:
        """Say this behind the numbers from the next line on."""
        del refresh  # lines come at their time
        self._postfix = text

    def close(self) -> None:
        """Write the last line, once."""
        if not self.disable and (self._leave or self._said > self._start):
            self._say(self.line(ended=True))
        self.disable = True

    def line(self, *, ended: bool = False) -> str:
        """Format how far the work is."""
        done = f"{self.n}/{self.total}" if self.total else str(self.n)
        parts = [self._desc, f"{done} {plural(self._unit)}"]
        seconds, steps = time.monotonic() - self._start, self.n - self._initial
        if self.total:
            parts.append(f"{100 * self.n // self.total} %")
        if ended:
            parts.append(f"in {human_seconds(seconds)}")
        elif self.total and steps > 0 and self._even:
            parts.append(f"{human_seconds(seconds / steps * (self.total - self.n))} left")
        return "  ".join(filter(None, [*parts, self._postfix]))

    def _say(self, line: str) -> None:
        self._said = time.monotonic()
        sys.stderr.write(f"{line}\n")
        sys.stderr.flush()


def human_seconds(seconds: float) -> str:
    """Format a duration as people say it, in one unit."""
    if seconds < 2 * MINUTE:
        return f"{seconds:.0f} s"
    return f"{seconds / MINUTE:.0f} min" if seconds < 2 * HOUR else f"{seconds / HOUR:.1f} h"


def plural(unit: str) -> str:
    """Name many of a unit: 'patches', 'rows'."""
    return f"{unit}es" if unit.endswith(("ch", "sh", "s", "x")) else f"{unit}s"

"""Bars of a process that the user does not see: they are not shown, and tell how far its work is.

In: what a bar is told. Out: calls of a function with a part from 0 to 1, that of all bars that are open together.
"""

from collections.abc import Callable, Iterable
from typing import Any

from magnet_core.log_bar import LogBar

Far = Callable[[float], None]


class UnseenBars:
    """The bars that are open, and `far`, which hears what part of their steps is done."""

    def __init__(self, far: Far) -> None:
        self._far = far
        self._open: list[LogBar] = []

    def open(self, iterable: Iterable[Any] = (), **options: Any) -> LogBar:
        """Return a bar, counted until it is closed; options as those of `LogBar`."""
        bar = _UnseenBar(self, iterable, **{**options, "disable": True})
        self._open.append(bar)
        return bar

    def close(self, bar: LogBar) -> None:
        """Count a bar no longer."""
        if bar in self._open:
            self._open.remove(bar)

    def tell(self) -> None:
        """Say what part is done; a bar that does not know its total is left out."""
        known = [(bar.n, bar.total) for bar in self._open if bar.total]
        if known:
            self._far(min(1.0, sum(done for done, _ in known) / sum(total for _, total in known)))


class _UnseenBar(LogBar):
    def __init__(self, bars: UnseenBars, iterable: Iterable[Any], **options: Any) -> None:
        super().__init__(iterable, **options)
        self._bars = bars

    def update(self, n: int = 1) -> None:
        super().update(n)
        self._bars.tell()

    def close(self) -> None:
        self._bars.close(self)
        super().close()

"""Stopping at a good moment: SIGINT (Ctrl-C) and SIGTERM (a cluster's pre-emption) are noted, not obeyed at once.

A second one is obeyed at once.
"""

import signal
import threading
from types import FrameType, TracebackType
from typing import Any, Self

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class StopRequest:
    """While it is entered, `requested` says whether the process was asked to stop. Works in the main thread only."""

    def __init__(self) -> None:
        self.requested = False
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            for number in _SIGNALS:
                if signal.getsignal(number) is not signal.SIG_IGN:  # a background job ignores Ctrl-C
                    self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._restore()
        if kind is not None and kind is not KeyboardInterrupt:  # asked to stop in a step that failed
            self.raise_if_requested()

    def raise_if_requested(self) -> None:
        """End the work, as Ctrl-C would have."""
        if self.requested:
            raise KeyboardInterrupt

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.requested = True
        self._restore()

    def _restore(self) -> None:
        while self._before:
            signal.signal(*self._before.popitem())

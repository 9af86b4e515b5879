"""Ctrl-C, SIGTERM and SIGUSR2 (a cluster's pre-emption) over many trainings, each of which listens to them itself.

A training notes a signal and ends at its next step. One that comes when no step is left would be lost with it; here it
is remembered, and heard before the next trial.
"""

import os
import select
import signal
import threading
from contextlib import AbstractContextManager
from types import TracebackType
from typing import Self

from magnet_core.interrupt import OF_A_CLUSTER, terminate


class Interrupts(AbstractContextManager["Interrupts"]):
    """While it is entered, a cluster's signals act as Ctrl-C, and all are remembered. Works in the main thread only."""

    def __init__(self) -> None:
        self._active = threading.current_thread() is threading.main_thread()

    def __enter__(self) -> Self:
        if self._active:
            self._reader, self._writer = os.pipe()
            os.set_blocking(self._writer, False)
            self._fd_before = signal.set_wakeup_fd(self._writer, warn_on_full_buffer=False)
            self._handlers_before = {number: signal.signal(number, terminate) for number in OF_A_CLUSTER}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._active:
            for number, handler in self._handlers_before.items():
                signal.signal(number, handler)
            signal.set_wakeup_fd(self._fd_before)
            os.close(self._reader)
            os.close(self._writer)

    def raise_if_heard(self) -> None:
        """End the work if a signal has come since this was entered, whoever handled it."""
        if self._active and select.select([self._reader], [], [], 0)[0]:
            raise KeyboardInterrupt

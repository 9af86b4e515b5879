"""Stopping: SIGINT (Ctrl-C), SIGTERM and SIGUSR2 (a cluster's pre-emption) end a command alike, but for its exit code.

In work that has a good moment to stop, they are noted and not obeyed at once; a second one is.
"""

import signal
import threading
from types import FrameType, TracebackType
from typing import Any, NoReturn, Self

OF_A_CLUSTER = (signal.SIGTERM, signal.SIGUSR2)  # the latter as one asks for it, such as `sbatch --signal=USR2@120`
SIGNALS = (signal.SIGINT, *OF_A_CLUSTER)


class Terminated(KeyboardInterrupt):
    """SIGTERM or SIGUSR2, which whoever cleans up after Ctrl-C cleans up after, too."""

    def __init__(self, number: int = signal.SIGTERM) -> None:
        super().__init__(number)
        self.number = number


def terminate(number: int, frame: FrameType | None) -> NoReturn:
    """End the work, as the handler of these signals."""
    raise Terminated(number)


def exit_code(error: BaseException | None) -> int:
    """Return the exit code of a command that a signal ended, from what was raised: 143 after SIGTERM, 140, or 130."""
    while error is not None and not isinstance(error, Terminated):
        error = error.__cause__ or error.__context__
    return 128 + (signal.SIGINT if error is None else error.number)


class StopRequest:
    """While it is entered, `requested` says whether the process was asked to stop; it is stopped at the end at latest.

    Around work of others' code, too: what a handler raises in a destructor or a callback of theirs is lost. Works in
    the main thread only. With `heeds_second` false a second signal is no more than the first one: torchrun passes a
    Ctrl-C on to its processes, which have met it already.
    """

    def __init__(self, *, heeds_second: bool = True) -> None:
        self.requested = False
        self._heeds_second = heeds_second
        self._error = KeyboardInterrupt()
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            for number in SIGNALS:
                if signal.getsignal(number) is not signal.SIG_IGN:  # a background job ignores Ctrl-C
                    self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._restore()
        is_ending = kind is not None and issubclass(kind, KeyboardInterrupt)
        if not is_ending:  # asked to stop in the last step, or in one that failed
            self.raise_if_requested()

    def raise_if_requested(self) -> None:
        """End the work, as the signal would have."""
        if self.requested:
            raise self._error

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.requested = True
        self._error = KeyboardInterrupt() if number == signal.SIGINT else Terminated(number)
        if self._heeds_second:
            self._restore()

    def _restore(self) -> None:
        while self._before:
            signal.signal(*self._before.popitem())

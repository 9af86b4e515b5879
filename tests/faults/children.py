"""Commands that run in forked children of one warm process, so that a thousand attempts cost a thousand forks.

In: the command as it is typed, the folder it runs in, and what befalls it there. Out: how it ended and what it said.
The parent has imported everything and computed nothing, as a pool of threads does not survive a fork.
"""

import faulthandler
import importlib
import os
import re
import signal
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import NoReturn, Self

PROGRAMS = {name: f"{name}.__main__" for name in ("extract", "train", "cache")}
DOCUMENTED = {0, 1, 2, 130, 140, 143}  # done, one line of error, a mistake in the options, Ctrl-C, SIGUSR2, SIGTERM
WAIT_SECONDS = 0.002
FOREIGN = re.compile(r"^Traceback|^Fatal Python error|panicked at", re.MULTILINE)


@dataclass(frozen=True)
class Ended:
    """How a child ended: its exit code, negative of the signal that ended it; stderr and stdout; hung: it had to be."""

    code: int
    said: str
    seconds: float
    hung: bool = False

    @property
    def is_foreign(self) -> bool:
        """Whether it ended in a way that no document speaks of: a traceback, a crash, an exit code of no meaning."""
        asked = {-signal.SIGKILL, -signal.SIGTERM, -signal.SIGINT}
        return self.hung or bool(FOREIGN.search(self.said)) or self.code not in DOCUMENTED | asked

    @property
    def last_line(self) -> str:
        """What it said last."""
        lines = self.said.split("\r")[-1].strip().splitlines()
        return lines[-1] if lines else ""


class Child:
    """A forked process that is at work until `wait` returns; what it says goes to a file."""

    def __init__(self, work: Callable[[], None], folder: Path, log: Path) -> None:
        self._log, self._began = log, time.monotonic()
        log.parent.mkdir(parents=True, exist_ok=True)
        sys.stdout.flush()
        sys.stderr.flush()
        self.pid = os.fork()
        if self.pid == 0:
            _live(work, folder, log)

    def send(self, number: int) -> None:
        """Send a signal; none reaches a child that has ended and was not waited for."""
        os.kill(self.pid, number)

    def has_ended_within(self, seconds: float) -> bool:
        """Wait so long for the end; the child can still be sent signals."""
        until = time.monotonic() + seconds
        while os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
            if time.monotonic() > until:
                return False
            time.sleep(WAIT_SECONDS)
        return True

    def wait(self, limit_seconds: float = 180) -> Ended:
        """Wait for the end, which is brought about after so long."""
        hung = not self.has_ended_within(limit_seconds)
        if hung:
            self.send(signal.SIGKILL)
        _, status = os.waitpid(self.pid, 0)
        said = self._log.read_text(encoding="utf-8", errors="replace")
        return Ended(os.waitstatus_to_exitcode(status), said, time.monotonic() - self._began, hung)


def warm_up() -> None:
    """Import the commands, once for all children."""
    for module in PROGRAMS.values():
        importlib.import_module(module)
    importlib.import_module("torch").set_num_threads(1)


def command(line: Sequence[str]) -> Callable[[], None]:
    """What runs a command line of the project, such as `["train", "fit"]`, in this process."""

    def run() -> None:
        sys.argv = list(line)
        importlib.import_module(PROGRAMS[line[0]]).main()

    return run


def run_and_learn(work: Callable[[], None], folder: Path, log: Path) -> Ended:
    """Run work in a child, and import here all that it has imported there, so that later children need not."""
    modules = log.with_suffix(".modules")

    def observed() -> None:
        try:
            work()
        finally:
            modules.write_text("\n".join(sys.modules))

    ended = Child(observed, folder, log).wait(600)
    for name in modules.read_text().splitlines():
        if name not in sys.modules and name != "__mp_main__":
            with suppress(ImportError, AttributeError):  # one that is made, not found
                importlib.import_module(name)
    return ended


def _live(work: Callable[[], None], folder: Path, log: Path) -> NoReturn:
    """The whole life of a child; it never returns into the code of its parent."""
    with _LastWords():
        descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o666)
        os.dup2(descriptor, 1)
        os.dup2(descriptor, 2)
        os.close(descriptor)
        faulthandler.enable(2)
        signal.signal(signal.SIGINT, signal.default_int_handler)  # which a background job ignores
        os.chdir(folder)
        work()
    raise SystemExit  # never reached


class _LastWords:
    """Ends the process as the interpreter would: the code of a SystemExit, or a traceback and code 1."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        code = 0
        if isinstance(error, SystemExit):
            code = error.code if isinstance(error.code, int) else int(error.code is not None)
        elif error is not None:
            traceback.print_exception(error)
            code = 1
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        os._exit(code)

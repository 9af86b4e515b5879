"""The moments at which a fault can fall: each time a process opens, renames, syncs or commits something in a folder.

In: a folder, and what shall happen at the n-th moment. Out: it happens, in this process. The interpreter's audit events
tell of opening, renaming and removing; syncing, and LMDB's commits, are told of by what stands in their place here.
"""

import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import lmdb

PATHS = {  # audit event -> which of its arguments are paths
    "open": (0,), "os.rename": (0, 1), "os.remove": (0,), "os.mkdir": (0,), "os.truncate": (0,), "os.rmdir": (0,),
    "sqlite3.connect": (0,),
}  # fmt: skip
Happens = Callable[[int, Path], None]  # number of the moment from 0, the path it is about


class Moments:
    """Counts the moments of this process in a folder, and lets `happens` do its worst at each. It lasts for ever."""

    def __init__(self, folder: Path, happens: Happens, *, reads: bool = False) -> None:
        self.count = 0
        self._folder = os.path.realpath(folder)
        self._happens, self._reads = happens, reads
        self._within = False
        sync, open_lmdb = os.fsync, lmdb.open

        def counted_sync(descriptor: Any) -> None:
            path = os.path.realpath(f"/proc/self/fd/{descriptor}")
            self.at(path)
            sync(descriptor)
            self.at(path)

        def counted_open(path: str, *arguments: Any, **options: Any) -> Any:
            if not options.get("readonly") or reads:
                self.at(path)
            env = open_lmdb(path, *arguments, **options)
            return env if options.get("readonly") else _CountedEnvironment(env, lambda: self.at(path))

        setattr(os, "fsync", counted_sync)  # noqa: B010 - the type of the function is not that of the one before
        setattr(lmdb, "open", counted_open)  # noqa: B010
        sys.addaudithook(self._hear)

    def at(self, path: object) -> None:
        """A moment has come, if it is about the folder."""
        if self._within or not isinstance(path, str | bytes | os.PathLike):
            return
        where = os.path.realpath(os.fsdecode(path))
        if not where.startswith(self._folder + os.sep):
            return
        self._within = True  # what happens may open files itself
        try:
            number, self.count = self.count, self.count + 1
            self._happens(number, Path(where))
        finally:
            self._within = False

    def _hear(self, event: str, arguments: tuple[Any, ...]) -> None:
        if event not in PATHS:
            return
        if event == "open" and not self._reads and not int(arguments[2] or 0) & (os.O_WRONLY | os.O_RDWR):
            return
        for place in PATHS[event]:
            self.at(arguments[place])


class _CountedEnvironment:
    """An LMDB environment whose writing transactions are moments, before they begin and after they are committed."""

    def __init__(self, env: Any, moment: Callable[[], None]) -> None:
        self._env, self._moment = env, moment

    def __getattr__(self, name: str) -> Any:
        return getattr(self._env, name)

    def __enter__(self) -> Self:
        self._env.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._env.__exit__(kind, error, trace)

    def begin(self, *arguments: Any, **options: Any) -> Any:
        return self._writing(options) if options.get("write") else self._env.begin(*arguments, **options)

    @contextmanager
    def _writing(self, options: dict[str, Any]) -> Iterator[Any]:
        self._moment()
        with self._env.begin(**options) as txn:
            yield txn
        self._moment()


def signalled(at: int, number: int) -> Happens:
    """The process gets a signal at a moment."""

    def happens(moment: int, path: Path) -> None:
        if moment == at:
            os.kill(os.getpid(), number)
            if number == signal.SIGKILL:
                signal.pause()

    return happens


def refused(at: int, code: int, *, times: int = 1) -> Happens:
    """The system refuses what is asked of it at a moment, and at some after it."""

    def happens(moment: int, path: Path) -> None:
        if at <= moment < at + times:
            raise OSError(code, os.strerror(code), str(path))

    return happens


def count_moments(folder: Path, counted: Path, *, reads: bool = False) -> None:
    """Count the moments of this process in a folder into a file, which has the number of all so far."""
    counted.write_text("0")

    def happens(moment: int, path: Path) -> None:
        counted.write_text(str(moment + 1))

    Moments(folder, happens, reads=reads)

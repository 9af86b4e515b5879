"""Untrusted files are looked at in a process of its own, within limits of memory and processor time.

In: a function of this project, which takes and returns plain values. Out: what it returns, or one line that says why
there is nothing: it raised, took too long or too much memory, or the library that it uses crashed. No array comes
back: what can be looked at within the limits can be read here afterwards, by the same library in the same way.

The process is started once and kept, as its imports take a second, and ends with the one that asks. What crashes or
exhausts it costs no more than the next start.
"""

import atexit
import contextlib
import importlib
import json
import os
import resource
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any

from magnet_core.errors import MagnetError
from magnet_core.interrupt import OF_A_CLUSTER

ONE_THREAD = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "POLARS_MAX_THREADS", "RAYON_NUM_THREADS")
ARENAS = "MALLOC_ARENA_MAX"  # each further one reserves addresses, which count as memory here
LONGEST_TEXT = 300  # of what an error says

_lock = threading.Lock()
_workers: dict[int, "_Worker"] = {}  # by the process that asks: one that was forked needs its own


def confined(
    function: Callable[..., Any],
    *arguments: Any,
    where: object,
    expected: str,
    remedy: str,
    seconds: float,
    max_bytes: int,
) -> Any:
    """Call a function of a module with plain values, in a process with `seconds` of the processor and `max_bytes`.

    What it raises, and its end by a limit or a crash, is a `MagnetError` with `where`, `expected` and `remedy`.
    """
    request = {
        "function": f"{function.__module__}:{function.__qualname__}",
        "arguments": arguments,
        "seconds": seconds,
        "max_bytes": max_bytes,
    }
    with _lock:
        answer = _ask(json.dumps(request), seconds=seconds)
    if "failed" in answer:
        raise MagnetError(where, expected=expected, found=answer["failed"], remedy=remedy)
    return answer["result"]


def _ask(request: str, *, seconds: float) -> dict[str, Any]:
    worker = _workers.get(os.getpid())
    if worker is None or worker.process.poll() is not None:
        worker = _workers[os.getpid()] = _Worker()
    answer: dict[str, Any] = {"failed": "", "ends": True}
    try:
        line = worker.answer_to(request)
        answer = json.loads(line) if line else {**answer, "failed": worker.cause_of_death(seconds)}
    finally:
        if "ends" in answer:  # or was interrupted at work: the next answer would be that to this request
            worker.stop()
    return answer


class _Worker:
    """A running process that answers requests, a line of JSON each."""

    def __init__(self) -> None:
        environment = {**os.environ, **dict.fromkeys(ONE_THREAD, "1"), ARENAS: "1"}
        environment["PYTHONPATH"] = os.pathsep.join(path or str(Path.cwd()) for path in sys.path)
        self._noise = tempfile.TemporaryFile()  # noqa: SIM115  what libraries write when they panic
        self.process = subprocess.Popen(
            [sys.executable, "-P", "-m", "magnet_core.confined"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._noise,
            env=environment,
            encoding="utf-8",
            start_new_session=True,  # Ctrl-C is for the one who asks
        )
        atexit.register(self.stop)

    def answer_to(self, request: str) -> str:
        """Send a request and wait for its answer, a line; an empty one when the process has ended instead."""
        if self.process.stdin and self.process.stdout:
            with contextlib.suppress(BrokenPipeError):
                self.process.stdin.write(request + "\n")
                self.process.stdin.flush()
                return self.process.stdout.readline()
        return ""

    def cause_of_death(self, seconds: float) -> str:
        """Say by which limit, or how else, the process has ended."""
        code = self.process.wait()
        if code == -signal.SIGPROF:
            return f"what takes more than {seconds:g} s to look at"
        name = signal.Signals(-code).name if code < 0 else f"exit code {code}"
        return f"what crashes the library that reads it ({name}), or asks it for absurd memory"

    def stop(self) -> None:
        """End the process, unless it has ended, and let go of what belongs to it."""
        atexit.unregister(self.stop)
        if _workers.get(os.getpid()) is self:  # not that of the process which this one was forked from
            del _workers[os.getpid()]
            self.process.kill()
            self.process.wait()
            for stream in (self.process.stdin, self.process.stdout):
                if stream is not None:
                    with contextlib.suppress(BrokenPipeError):
                        stream.close()
            self._noise.close()


def serve() -> None:
    """Answer the requests on stdin, in the process that `confined` starts."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # whatever else writes to stdout

    def answer(**content: Any) -> None:
        answers.write(json.dumps(content) + "\n")
        answers.flush()

    def last_words(kind: type[BaseException], error: BaseException, _: TracebackType | None) -> None:
        answer(failed=_words(kind, error), ends=True)

    sys.excepthook = last_words  # also for a panic of Rust, which no `except` with a name would catch
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    for number in OF_A_CLUSTER:  # which Slurm sends to all processes; this one ends with the one that asks
        signal.signal(number, signal.SIG_IGN)
    for line in sys.stdin:
        request = json.loads(line)
        module, _, name = request["function"].partition(":")
        function = getattr(importlib.import_module(module), name)
        limit_addresses(request["max_bytes"])
        signal.setitimer(signal.ITIMER_PROF, request["seconds"])  # whose signal ends the process, also within a library
        try:
            result = function(*request["arguments"])
        except (OSError, ValueError, TypeError, LookupError, ArithmeticError, RuntimeError) as error:
            answer(failed=_words(type(error), error))
        else:
            answer(result=result)
        signal.setitimer(signal.ITIMER_PROF, 0)


def limit_addresses(nbytes: int) -> None:
    """Let this process have so many bytes of addresses, or fewer where its user may not have as many."""
    _, most = resource.getrlimit(resource.RLIMIT_AS)  # which only the system's keeper may raise
    allowed = nbytes if most == resource.RLIM_INFINITY else min(nbytes, most)
    with contextlib.suppress(OSError, ValueError):  # there are systems that do not limit addresses
        resource.setrlimit(resource.RLIMIT_AS, (allowed, most))


def _words(kind: type[BaseException], error: BaseException) -> str:
    if issubclass(kind, MemoryError):
        return "what asks for absurd memory"
    text = " ".join(str(error).split())
    said = text if issubclass(kind, OSError | ValueError | LookupError) and text else f"{kind.__name__}: {text}"
    return said if len(said) <= LONGEST_TEXT else f"{said[:LONGEST_TEXT]}…"


if __name__ == "__main__":
    serve()

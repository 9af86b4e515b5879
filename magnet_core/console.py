"""How a command line speaks: bars on stderr, results on stdout, one line on stderr for a user's error, exit code 1.

Ctrl-C is one line too, and exit code 130, from the first import of a command on.
"""

import importlib
import logging
import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NoReturn

from tqdm import tqdm

from magnet_core.errors import MagnetError

INTERRUPTED = 130  # exit code of a program that Ctrl-C ended
_said_after_ctrl_c = "interrupted; run again"


def run_command(module: str, *, interrupted: str = "interrupted; run again") -> None:
    """Import a command line by the name of its module, and run its typer `app`; `interrupted` is said after Ctrl-C.

    A `MagnetError`, or a path the system refuses, becomes one line and exit code 1; all else keeps its traceback.
    """
    global _said_after_ctrl_c
    _said_after_ctrl_c = interrupted
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # beside other work, threads that spin wait many times longer
    logging.getLogger("tifffile").addHandler(logging.NullHandler())  # a broken file is told of in our own words
    try:
        with importing():
            commands: Any = importlib.import_module(module)
        commands.app()
    except MagnetError as error:
        _end(f"error: {error}", 1)
    except OSError as error:  # a folder that cannot be made, a disk that is full
        if error.filename is None:
            raise
        _end(f"error: {error.filename}: {error.strerror}; check the path, its rights and the space on the disk", 1)
    except KeyboardInterrupt:
        _end(interrupted, INTERRUPTED)
    except SystemExit as end:
        if end.code != INTERRUPTED:  # which typer makes of Ctrl-C
            raise
        _end(interrupted, INTERRUPTED)


@contextmanager
def importing() -> Iterator[None]:
    """Around imports that take long: Ctrl-C ends the process, as a KeyboardInterrupt is wrapped or lost in some."""
    before = signal.getsignal(signal.SIGINT)
    in_main_thread = threading.current_thread() is threading.main_thread()
    if before is not signal.default_int_handler or not in_main_thread:  # a background job ignores Ctrl-C
        yield
        return
    signal.signal(signal.SIGINT, _stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _stop(*_: object) -> None:
    sys.stderr.write(f"{_said_after_ctrl_c}\n")
    sys.stderr.flush()
    os._exit(INTERRUPTED)


def _end(line: str, code: int) -> NoReturn:
    sys.stderr.write(f"{line}\n")
    raise SystemExit(code) from None


def progress(*iterable: Any, **options: Any) -> tqdm:
    """Return a tqdm bar that redraws often on a terminal, and writes a line's worth now and then into a job's log."""
    return tqdm(*iterable, mininterval=0.3 if sys.stderr.isatty() else 20.0, dynamic_ncols=True, **options)


def human_bytes(count: float) -> str:
    """Format a byte count as people read it, in binary units."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if abs(count) < 1024:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} TiB"

"""How a command line speaks: bars on stderr, results on stdout, one line on stderr for a user's error, exit code 1.

Ctrl-C is one line too, and exit code 130, from the first import of a command on; so are SIGTERM, with 143, and SIGUSR2,
with 140. What library code has to say goes to `logger(__name__)` or `notice`, and comes out as lines on stderr between
the bars once a command has called `speak`.
"""

import importlib
import logging
import os
import signal
import sys
import threading
import traceback
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from types import TracebackType
from typing import Any, NoReturn

from tqdm import tqdm

from magnet_core.environment import fault_line
from magnet_core.errors import MagnetError, in_one_line, without_secrets
from magnet_core.hub_address import hub_address
from magnet_core.interrupt import OF_A_CLUSTER, SIGNALS, exit_code, terminate
from magnet_core.log_bar import LogBar
from magnet_core.unseen_bar import Far, UnseenBars

INTERRUPTED = 130  # exit code of a program that Ctrl-C ended
NOTICE = 25  # between info and warning: what is told unless --quiet
_LOGGER = logging.getLogger("magnet_hd")
_bars = True
_unseen: UnseenBars | None = None
_said_after_ctrl_c = "interrupted; run again"
_HEEDING = (signal.default_int_handler, terminate)  # handlers that end a command; a background job ignores Ctrl-C


def run_command(module: str, *, interrupted: str = "interrupted; run again") -> None:
    """Import a command line by the name of its module, and run its typer `app`; `interrupted` is said after a signal.

    A `MagnetError`, or what the machine does not give (`magnet_core.environment`), becomes one line and exit code 1,
    with --verbose below where it came from; all else keeps its traceback.
    """
    global _said_after_ctrl_c
    _said_after_ctrl_c = interrupted
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # beside other work, threads that spin wait many times longer
    logging.getLogger("tifffile").addHandler(logging.NullHandler())  # a broken file is told of in our own words
    logging.getLogger("asyncio").addHandler(logging.NullHandler())  # so are tasks that a full disk leaves undone
    threading.excepthook = _ended_thread
    for number in OF_A_CLUSTER if threading.current_thread() is threading.main_thread() else ():
        if signal.getsignal(number) == signal.SIG_DFL:
            signal.signal(number, terminate)
    try:
        with EndingInOneLine():
            hub_address()  # its client would fail at import
            with importing():
                commands: Any = importlib.import_module(module)
            commands.app()
    except KeyboardInterrupt as error:
        _end(interrupted, exit_code(error))
    except SystemExit as end:
        if end.code != INTERRUPTED:  # which typer makes of Ctrl-C
            raise
        _end(interrupted, exit_code(end))


class EndingInOneLine(AbstractContextManager[None]):
    """Around all that a process does: a user's error or a fault of the machine ends it with one line, exit code 1."""

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if isinstance(error, MagnetError):
            _end(f"error: {error}", 1)
        if isinstance(error, Exception) and (line := fault_line(error)) is not None:
            _end(f"error: {' '.join(line.split())}", 1)


@contextmanager
def importing() -> Iterator[None]:
    """Around imports that take long: signals end the process, as a KeyboardInterrupt is wrapped or lost in some."""
    handlers: dict[int, Any] = {}
    if threading.current_thread() is threading.main_thread():
        handlers = {number: signal.getsignal(number) for number in SIGNALS}
    heeded = {number: handler for number, handler in handlers.items() if handler in _HEEDING}
    for number in heeded:
        signal.signal(number, _stop)
    try:
        yield
    finally:
        for number, handler in heeded.items():
            signal.signal(number, handler)


def _ended_thread(ended: threading.ExceptHookArgs) -> None:
    """Leave a fault of the machine in a library's thread to the thread that waits for it, which raises it again."""
    if ended.exc_value is None or fault_line(ended.exc_value) is None:
        threading.__excepthook__(ended)
    elif _LOGGER.isEnabledFor(logging.DEBUG):
        traceback.print_exception(ended.exc_value)


def _stop(number: int, _: object) -> None:
    sys.stderr.write(f"{_said_after_ctrl_c}\n")
    sys.stderr.flush()
    os._exit(128 + number)


def _end(line: str, code: int) -> NoReturn:
    if code == 1 and _LOGGER.isEnabledFor(logging.DEBUG):
        sys.stderr.write(without_secrets(traceback.format_exc()))
    sys.stderr.write(f"{in_one_line(line)}\n")
    raise SystemExit(code) from None


def speak(*, verbose: bool = False, quiet: bool = False) -> None:
    """Let messages reach the user from now on: warnings and notices, with `verbose` all, with `quiet` only errors.

    Quiet has no bars either. A process that a command starts calls this for itself.
    """
    global _bars
    if verbose and quiet:
        raise MagnetError("--quiet", expected="--verbose or --quiet", found="both", remedy="leave one of them out")
    _bars = not quiet
    _LOGGER.setLevel(logging.ERROR if quiet else logging.DEBUG if verbose else NOTICE)
    if not any(isinstance(handler, _BetweenBars) for handler in _LOGGER.handlers):
        _LOGGER.addHandler(_BetweenBars())
    if quiet or not sys.stderr.isatty():
        os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")  # those of the hub's client, while it is imported


def logger(name: str) -> logging.Logger:
    """Return the logger of a module of library code, named by its `__name__`."""
    return _LOGGER.getChild(name)


def notice(text: str) -> None:
    """Tell the user one line that is no warning, such as where a run goes on; --quiet leaves it out."""
    _LOGGER.log(NOTICE, "%s", text)


Said = tuple[str, int, str]  # a message: the name of its logger, its level, its text


def heard_level() -> int:
    """The level from which on messages reach the user."""
    return _LOGGER.level


@contextmanager
def collected(level: int, far: Far | None = None) -> Iterator[list[Said]]:
    """Around work in a process that the user does not see: yields the list of what it says.

    It shows no bars; what part of their steps is done goes to `far`.
    """
    global _bars, _unseen
    _bars, _unseen = False, UnseenBars(far) if far is not None else None
    _LOGGER.setLevel(level)
    collector = _Collector()
    before, _LOGGER.handlers = _LOGGER.handlers, [collector]
    try:
        yield collector.said
    finally:
        _LOGGER.handlers, _unseen = before, None


def say_again(said: Sequence[Said]) -> None:
    """Tell the user what was said in another process."""
    for name, level, text in said:
        logging.getLogger(name).log(level, "%s", text)


class _Collector(logging.Handler):
    """Keeps messages."""

    def __init__(self) -> None:
        super().__init__()
        self.said: list[Said] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Keep one message."""
        self.said.append((record.name, record.levelno, record.getMessage()))


class _BetweenBars(logging.Handler):
    """Writes each message as one line on stderr, above bars that are drawn there; with --verbose, its traceback too."""

    def emit(self, record: logging.LogRecord) -> None:
        """Write one message."""
        text = in_one_line(record.getMessage())
        if record.levelno == logging.WARNING:
            text = f"warning: {text}"
        elif record.levelno < NOTICE:
            text = f"{record.name.removeprefix('magnet_hd.')}: {text}"
        if record.exc_info and _LOGGER.isEnabledFor(logging.DEBUG):
            text = without_secrets("".join([*traceback.format_exception(*record.exc_info), text]))
        if sys.stderr.isatty():
            tqdm.write(text, file=sys.stderr)
        else:
            sys.stderr.write(f"{text}\n")
            sys.stderr.flush()


Bar = tqdm | LogBar  # what shows how far the work is
_ELAPSED_ALONE = "{l_bar}{bar}| {n_fmt}/{total_fmt} [{elapsed}{postfix}]"  # tqdm's, without the time that is left


def progress(*iterable: Any, even: bool = True, **options: Any) -> Any:
    """Return a tqdm bar on a terminal, a `LogBar` elsewhere, and after `speak(quiet=True)` one that is never shown.

    Of steps that are not `even`, as cells of different systems are, the time that is left is not estimated.
    """
    if _unseen is not None:
        return _unseen.open(*iterable, even=even, **options)
    if not _bars:
        options["disable"] = True
    if not sys.stderr.isatty():
        return LogBar(*iterable, even=even, **options)
    if not even:
        options["bar_format"] = _ELAPSED_ALONE
    return tqdm(*iterable, mininterval=0.3, dynamic_ncols=True, **options)


def human_bytes(count: float) -> str:
    """Format a byte count as people read it, in binary units."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if abs(count) < 1024:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} TiB"

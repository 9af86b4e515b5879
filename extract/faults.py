"""What is one slide's fault, for all that goes through slides one by one: run, plan, preflight, inspect.

In: work on one slide. Out: the same work, whose faults are `MagnetError`s of one line, so that the caller tells of the
slide and goes on with the next. A full or read-only disk is a `PlaceError`, which no slide is to blame for.
"""

import errno
import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager

import polars as pl

from magnet_core.errors import NO_PLACE, MagnetError, PlaceError

# What the system and the libraries that read a slide's files raise where a file is not what it should be. That the
# Parquet reader panics is no `Exception` at all; a mistake of ours in types is none of these, and ends the run.
FAULTS: tuple[type[BaseException], ...] = (
    OSError,
    MemoryError,
    EOFError,
    ValueError,  # text that is not UTF-8 or ASCII is one
    LookupError,
    OverflowError,
    RecursionError,
    struct.error,
    zlib.error,
    pl.exceptions.PolarsError,
    pl.exceptions.PanicException,
)


@contextmanager
def slide_faults(slide_id: str) -> Iterator[None]:
    """Around the work on a slide: what is wrong with its files is raised as one line."""
    try:
        yield
    except FAULTS as error:
        if isinstance(error, OSError) and error.errno in NO_PLACE:
            raise PlaceError.of(error, where=f"slide '{slide_id}'") from error
        raise MagnetError(
            f"slide '{slide_id}'",
            expected="files that can be read, and memory for what they hold",
            found=_in_words(error),
            remedy=_remedy(error),
        ) from error


def _in_words(error: BaseException) -> str:
    if isinstance(error, OSError) and error.strerror:
        return f"{error.strerror}: {error.filename}" if error.filename else error.strerror
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__


def _remedy(error: BaseException) -> str:
    if isinstance(error, MemoryError) or (isinstance(error, OSError) and error.errno == errno.ENOMEM):
        return "give it more memory, or fewer --workers and a smaller --batch-size"
    if isinstance(error, OSError):
        return "check the path, its rights and the disk"
    return "check the slide's files; --verbose says where it came from"

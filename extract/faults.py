"""What is one slide's fault, for all that goes through slides one by one: run, plan, preflight, inspect.

In: work on one slide. Out: the same work, whose faults are `MagnetError`s of one line, so that the caller tells of the
slide and goes on with the next. What the machine refuses is told in the words of `magnet_core.environment`; a full or
read-only disk is a `PlaceError`, which no slide is to blame for.
"""

import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager

import polars as pl

from magnet_core.errors import MagnetError, PlaceError, machine_error

OF_THE_MACHINE = (OSError, MemoryError)
# What the libraries that read a slide's files raise where a file is not what it should be. That the Parquet reader
# panics is no `Exception` at all.
UNREADABLE: tuple[type[BaseException], ...] = (
    EOFError,
    struct.error,
    zlib.error,
    pl.exceptions.PolarsError,
    pl.exceptions.PanicException,
)
# They raise these, too; elsewhere a mistake of ours does. One in types is none of them, and ends the run.
DOUBTFUL = (ValueError, LookupError, OverflowError, RecursionError)  # text that is not UTF-8 or ASCII is a ValueError
OF_FOREIGN_BYTES: tuple[type[BaseException], ...] = (*UNREADABLE, *DOUBTFUL)


@contextmanager
def slide_faults(slide_id: str) -> Iterator[None]:
    """Around the work on a slide: what is wrong with it is raised as one line."""
    where = f"slide '{slide_id}'"
    try:
        yield
    except OF_THE_MACHINE as error:
        told = machine_error(error, where=where)
        if isinstance(told, PlaceError) or str(told).startswith(where):
            raise told from error
        raise MagnetError.of_line(f"{where}: {told}") from error  # which the slide's file stands in
    except UNREADABLE as error:
        raise _unreadable(where, error) from error
    except DOUBTFUL as error:
        raise MagnetError(
            where,
            expected="no fault after its files were read",
            found=_in_words(error),
            remedy="this may be a fault of the program: --verbose says where it came from",
        ) from error


@contextmanager
def foreign_bytes(path: object) -> Iterator[None]:
    """Around what parses files of others: whatever it raises there is the fault of these files."""
    try:
        yield
    except OF_FOREIGN_BYTES as error:
        raise _unreadable(path, error) from error


def _unreadable(where: object, error: BaseException) -> MagnetError:
    return MagnetError(
        where,
        expected="files that can be read",
        found=_in_words(error),
        remedy="check the slide's files; --verbose says where it came from",
    )


def _in_words(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__

"""Faults of the machine in one line: a full or read-only disk, missing rights, memory that ran out.

In: an exception, as Python, the system or a library raised it. Out: the line a user reads, or None where the fault is
the program's own and its traceback is wanted. Libraries wrap what the system says in errors of their own: what they
wrapped is looked for in the chain of causes, and else the system's words in their text.

The one table of such faults and of what helps is `FAULTS`: a command that ends (`magnet_core.console`), one slide of
many (`extract.faults`) and the store (`cache.lmdb_file`) say the same of the same fault.
"""

import errno
import os
from collections.abc import Iterator
from dataclasses import dataclass


@dataclass(frozen=True)
class Fault:
    """What helps where the machine refuses something.

    ends_all  whether nothing more can be written where results go, so that what else is to do would meet it too
    """

    remedy: str
    ends_all: bool = False


_GO_ON = "give the same command again: it goes on where it was stopped"
_ROOM = f"make room on the disk, and {_GO_ON}"
_RIGHTS = "check the path and its rights, or name another folder"
_ELSE = f"check the path, its rights and the space on the disk, and {_GO_ON}"
FAULTS = {
    errno.ENOSPC: Fault(_ROOM, ends_all=True),
    errno.EDQUOT: Fault(_ROOM, ends_all=True),
    errno.EFBIG: Fault(f"raise the limit of file sizes (ulimit -f, or the file system's), and {_GO_ON}", ends_all=True),
    errno.EROFS: Fault("name a folder that can be written", ends_all=True),
    errno.EACCES: Fault(_RIGHTS),
    errno.EPERM: Fault(_RIGHTS),
    errno.EIO: Fault(f"check the disk, the room on it and its network, and {_GO_ON}"),  # LMDB says so of a full one
    errno.ENAMETOOLONG: Fault("give a shorter name"),
    errno.EMFILE: Fault(f"raise the limit of open files (ulimit -n), and {_GO_ON}"),
    errno.ENOMEM: Fault(f"free memory, or use less of it (fewer workers, smaller batches), and {_GO_ON}"),
}
# What libraries say in words of their own, in the place of the system's.
_SPELT = {
    "database or disk is full": errno.ENOSPC,  # SQLite
    "attempt to write a readonly database": errno.EROFS,
    "disk I/O error": errno.EIO,
    "unable to open database file": errno.EACCES,
    "can't allocate memory": errno.ENOMEM,  # torch, on the CPU
    "Unable to allocate": errno.ENOMEM,  # NumPy
}
_GPU = "the GPU's memory is too small; set compute.micro_batch=16, or a smaller batch_size of the system"


def fault_line(error: BaseException, *, where: object = "") -> str | None:
    """Say what the machine did not give, where, and what may help; None where it is no fault of the machine.

    where  the file or folder that was worked on, told where the error names none
    """
    if (line := known_fault(error, where=where)) is None and isinstance(error, OSError):
        return f"{_place(error, where)}{error.strerror or _first_line(error)}; {_ELSE}"
    return line


def known_fault(error: BaseException, *, where: object = "") -> str | None:
    """As `fault_line`, but None also where what the system refuses may be due to what a file holds."""
    for each in _chain(error):
        if type(each).__name__ == "OutOfMemoryError":  # torch's, which is not imported for a word
            return _GPU
        if isinstance(each, MemoryError):
            return f"{_colon(where)}memory ran out ({_first_line(each)}); {FAULTS[errno.ENOMEM].remedy}"
        if isinstance(each, OSError) and each.errno in FAULTS:
            return f"{_place(each, where)}{os.strerror(each.errno)}; {FAULTS[each.errno].remedy}"
        if number := _errno_in(str(each)):
            return f"{_colon(where)}{_in_words(each, number)}; {FAULTS[number].remedy}"
    return None


def ends_all(error: BaseException) -> bool:
    """Tell whether the system says, by its number, that nothing more can be written where results go."""
    numbers = (each.errno for each in _chain(error) if isinstance(each, OSError) and each.errno is not None)
    return any(number in FAULTS and FAULTS[number].ends_all for number in numbers)


def refusal_line(error: BaseException, *, where: object) -> str:
    """As `fault_line`, for what is one of the machine whatever its words."""
    return fault_line(error, where=where) or f"{_colon(where)}{_first_line(error)}; {_ELSE}"


def is_lack_of_memory(error: BaseException) -> bool:
    """Tell whether memory ran out, as Python or a library says it."""
    return any(isinstance(each, MemoryError) or _errno_in(str(each)) == errno.ENOMEM for each in _chain(error))


def _place(error: OSError, where: object) -> str:
    named = error.filename
    return f"{os.fsdecode(named)}: " if isinstance(named, str | bytes | os.PathLike) else _colon(where)


def _colon(where: object) -> str:
    return f"{where}: " if str(where) else ""


def _in_words(error: BaseException, number: int) -> str:
    """The system's words, and those of a library where they say more than which file it is."""
    words, said = os.strerror(number), _first_line(error)
    return words if said.endswith(f": {words}") else f"{words} ({type(error).__name__}: {said})"


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """The error, what it was raised from or in the handling of, and so on."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)


def _errno_in(text: str) -> int | None:
    spelt = {**{os.strerror(number): number for number in FAULTS}, **_SPELT}
    return next((number for words, number in spelt.items() if words in text), None)


def _first_line(error: BaseException) -> str:
    return str(error).strip().partition("\n")[0] or type(error).__name__

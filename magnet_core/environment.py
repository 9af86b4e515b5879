"""Faults of the machine in one line: a full or read-only disk, missing rights, memory that ran out.

In: an exception, as Python, the system or a library raised it. Out: the line a user reads, or None where the fault is
the program's own and its traceback is wanted. Libraries wrap what the system says in errors of their own: what they
wrapped is looked for in the chain of causes, and else the system's words in their text.
"""

import errno
import os
from collections.abc import Iterator

_GO_ON = "give the same command again: it goes on where it was stopped"
_ROOM = f"make room on the disk, and {_GO_ON}"
_RIGHTS = "check the path and its rights, or name another folder"
_ELSE = f"check the path, its rights and the space on the disk, and {_GO_ON}"
REMEDIES = {
    errno.ENOSPC: _ROOM,
    errno.EDQUOT: _ROOM,
    errno.EFBIG: f"raise the limit of file sizes (ulimit -f, or the file system's), and {_GO_ON}",
    errno.EROFS: "name a folder that can be written",
    errno.EACCES: _RIGHTS,
    errno.EPERM: _RIGHTS,
    errno.EIO: f"check the disk or its network, and {_GO_ON}",
    errno.ENAMETOOLONG: "give a shorter name",
    errno.EMFILE: f"raise the limit of open files (ulimit -n), and {_GO_ON}",
    errno.ENOMEM: f"free memory or use less of it, and {_GO_ON}",
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


def fault_line(error: BaseException) -> str | None:
    """Say what the machine did not give, where, and what may help; None where it is no fault of the machine."""
    if (line := known_fault(error)) is None and isinstance(error, OSError):
        return f"{_place(error)}{error.strerror or _first_line(error)}; {_ELSE}"
    return line


def known_fault(error: BaseException) -> str | None:
    """As `fault_line`, but None also where what the system refuses may be due to what a file holds."""
    for each in _chain(error):
        if type(each).__name__ == "OutOfMemoryError":  # torch's, which is not imported for a word
            return _GPU
        if isinstance(each, MemoryError):
            return f"memory ran out ({_first_line(each)}); {REMEDIES[errno.ENOMEM]}"
        if isinstance(each, OSError) and each.errno in REMEDIES:
            return f"{_place(each)}{os.strerror(each.errno)}; {REMEDIES[each.errno]}"
        if number := _errno_in(str(each)):
            return f"{os.strerror(number)} ({type(each).__name__}: {_first_line(each)}); {REMEDIES[number]}"
    return None


def is_lack_of_memory(error: BaseException) -> bool:
    """Tell whether memory ran out, as Python or a library says it."""
    return any(isinstance(each, MemoryError) or _errno_in(str(each)) == errno.ENOMEM for each in _chain(error))


def _place(error: OSError) -> str:
    named = error.filename
    return f"{os.fsdecode(named)}: " if isinstance(named, str | bytes | os.PathLike) else ""


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """The error, what it was raised from or in the handling of, and so on."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)


def _errno_in(text: str) -> int | None:
    spelt = {**{os.strerror(number): number for number in REMEDIES}, **_SPELT}
    return next((number for words, number in spelt.items() if words in text), None)


def _first_line(error: BaseException) -> str:
    return str(error).strip().partition("\n")[0] or type(error).__name__

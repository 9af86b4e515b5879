"""Tensors of files that may hold anything: safetensors, and torch's own files read without running code of theirs.

In: a path. Out: what the file holds, or one line that says it cannot be read; a fault of the machine, such as memory
that runs out, is raised as it came, as the file is not to blame. Nothing is unpickled but tensors and
plain values (`weights_only`); entries of torch's zip files are stored as they are, so that none is larger than its
file.
"""

import zipfile
import zlib
from pathlib import Path
from struct import error as StructError  # noqa: N812
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from magnet_core.environment import is_lack_of_memory, known_fault
from magnet_core.errors import MagnetError

# What torch's readers raise on bytes that are no file of theirs, or on a crafted one.
_UNREADABLE = (
    torch.serialization.pickle.UnpicklingError,  # also on anything but tensors
    RuntimeError, EOFError, OSError, ValueError, TypeError, LookupError, AttributeError, AssertionError,
    ArithmeticError, MemoryError, zipfile.BadZipFile, zlib.error, StructError,
)  # fmt: skip


def read_safetensors(path: Path, *, expected: str, remedy: str) -> dict[str, Tensor]:
    """Return the tensors of a safetensors file by name, on the CPU."""
    try:
        return load_file(path, device="cpu")
    except (SafetensorError, *_UNREADABLE) as error:
        if known_fault(error):
            raise
        raise _unreadable(path, error, expected=expected, remedy=remedy) from error


def read_torch(path: Path, *, expected: str, remedy: str, intact: bool = False) -> Any:
    """Return what a torch file holds, on the CPU; with `intact` its bytes must match their checksums.

    torch writes checksums of all entries, but does not compare them, and other programs may write none that hold.
    """
    is_bounded = _is_zip(path)  # torch's older format states sizes that its file need not have
    try:
        if intact or is_bounded:
            _check_entries(path, intact=intact)
        return torch.load(path, map_location="cpu", weights_only=True)
    except _UNREADABLE as error:
        if known_fault(error) and (is_bounded or not is_lack_of_memory(error)):
            raise
        raise _unreadable(path, error, expected=expected, remedy=remedy) from error


def _is_zip(path: Path) -> bool:
    try:
        return zipfile.is_zipfile(path)
    except (OSError, zipfile.BadZipFile):  # torch's reader says what it is
        return False


def _check_entries(path: Path, *, intact: bool) -> None:
    with zipfile.ZipFile(path) as parts:
        if any(part.compress_type != zipfile.ZIP_STORED for part in parts.infolist()):
            raise zipfile.BadZipFile("compressed entries, which torch does not write")
        if sum(part.file_size for part in parts.infolist()) > path.stat().st_size:
            raise zipfile.BadZipFile("entries that are larger than the file")
        damaged = parts.testzip() if intact else None
    if damaged is not None:
        raise zipfile.BadZipFile(f"{damaged} has changed since it was written")


def _unreadable(path: Path, error: BaseException, *, expected: str, remedy: str) -> MagnetError:
    said = type(error).__name__
    if isinstance(error, OSError) and error.strerror:
        said = error.strerror
    elif isinstance(error, zipfile.BadZipFile):
        said = str(error)
    elif is_lack_of_memory(error):
        said = f"its {path.stat().st_size} bytes ask for more memory than there is"
    return MagnetError(path, expected=expected, found=f"a file that cannot be read as one ({said})", remedy=remedy)

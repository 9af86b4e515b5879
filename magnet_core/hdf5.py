"""HDF5 files that are written whole or not at all, also where the disk fills up.

In: a path. Out: an h5py file to write. HDF5 takes no write that fails: it tries again when its objects are freed and
when the process ends, and brings the process down. So it writes through a file of Python that remembers the system's
first refusal and takes the rest for written; the refusal is raised when HDF5 has let go of the file, which is removed.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import h5py

from magnet_core.files import replacing


class _Forgiving:
    """A file as h5py asks for it, whose writes never fail."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.fault: OSError | None = None

    def seek(self, offset: int, whence: int = 0) -> int:
        """Go to a place."""
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        """Say the place."""
        return self._file.tell()

    def read(self, size: int) -> bytes:
        """Read bytes; zeros beyond what was written before the disk was full."""
        content = self._file.read(size)
        return content + bytes(size - len(content))

    def readinto(self, buffer: memoryview) -> int:
        """Fill a buffer so."""
        view = memoryview(buffer).cast("B")
        view[:] = self.read(len(view))
        return len(view)

    def write(self, content: memoryview) -> int:
        """Write bytes, until one write has failed."""
        left = memoryview(content).cast("B")
        size = len(left)
        while len(left) and self.fault is None:
            try:
                left = left[self._file.write(left) :]  # a disk that fills up takes a part
            except OSError as error:
                self.fault = error
        return size

    def truncate(self, size: int | None = None) -> int:
        """Cut or lengthen the file, until a write has failed."""
        if self.fault is None:
            try:
                return self._file.truncate(size)
            except OSError as error:
                self.fault = error
        return size or 0

    def flush(self) -> None:
        """Leave it to the end, as nothing reads the file before."""


@contextmanager
def replacing_hdf5(path: Path) -> Iterator[h5py.File]:
    """Yield an HDF5 file that is written beside `path`, and move it there, synced, at the end."""
    with replacing(path) as partial, partial.open("w+b", buffering=0) as file:
        forgiving = _Forgiving(file)
        try:
            with h5py.File(forgiving, "w") as content:
                yield content
        finally:
            if forgiving.fault is not None:
                raise forgiving.fault

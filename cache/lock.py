"""A lock between processes that dies with its holder. Serves design section "The store": one file, one writer.

In: the path of the lock file. Out: a held lock, or who holds it. The kernel drops an flock when its process ends,
however it ends, so a dead job never blocks the next one.
"""

import fcntl
import os
import socket
from contextlib import suppress
from pathlib import Path

from magnet_core.errors import MagnetError


class FileLock:
    """An exclusive flock on `path`, whose text names the holder as 'host, process id'."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._descriptor: int | None = None

    def acquire(self, *, wait: bool) -> bool:
        """Take the lock; with `wait=False` return False when another process (or object) holds it."""
        while True:
            descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o666)
            if not self._flock(descriptor, wait=wait):
                os.close(descriptor)
                return False
            if self._is_current(descriptor):
                break
            os.close(descriptor)  # the holder before us removed the file: lock the one that took its place
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{socket.gethostname()}, process {os.getpid()}".encode(), 0)
        self._descriptor = descriptor
        return True

    def release(self) -> None:
        """Remove the lock file and let go; no effect when the lock is not held."""
        if self._descriptor is None:
            return
        with suppress(FileNotFoundError):  # the whole store may have been removed meanwhile
            self.path.unlink()
        os.close(self._descriptor)
        self._descriptor = None

    def owner(self) -> str:
        """Who holds the lock, as the holder wrote it."""
        try:
            return self.path.read_text() or "a process that is just starting"
        except FileNotFoundError:
            return "a process that has just ended"

    def _flock(self, descriptor: int, *, wait: bool) -> bool:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            return False
        except OSError as error:
            os.close(descriptor)
            raise MagnetError(
                self.path,
                expected="a file system with file locks",
                found=str(error),
                remedy="mount it with locks (Lustre: -o flock), or put the store elsewhere",
            ) from error
        return True

    def _is_current(self, descriptor: int) -> bool:
        """Whether the path still names the file that was locked."""
        try:
            return os.path.samestat(os.fstat(descriptor), self.path.stat())
        except FileNotFoundError:
            return False

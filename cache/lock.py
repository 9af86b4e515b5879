"""A lock between processes that dies with its holder. Serves design section "The store": one file, one writer.

In: the path of the lock file. Out: a held lock, or who holds it. The lock is filelock's: the kernel drops an flock when
its process ends, however it ends, and a forked child does not inherit it, so a dead job never blocks the next one. Ours
are the holder's name in the file, and that the file goes when the lock does, also where the file system (NFS) keeps a
removed file that is open.
"""

import errno
import fcntl
import os
import socket
import sys
from contextlib import suppress
from pathlib import Path

from filelock import Timeout, UnixFileLock

from magnet_core.errors import MagnetError

POLL_SECONDS = 0.1  # between two looks at a lock that is waited for
NO_LOCKS = {errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOLCK}


class FileLock:
    """An exclusive flock on `path`, whose text names the holder as 'host, process id (command)'."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = UnixFileLock(
            path, thread_local=False, poll_interval=POLL_SECONDS, fallback_to_soft=False, on_acquired=self._sign
        )

    def acquire(self, *, wait: bool) -> bool:
        """Take the lock; with `wait=False` return False when another process (or object) holds it."""
        while True:
            try:
                self._lock.acquire(blocking=wait)
            except _RemovedError:  # the holder before us removed the file: lock the one that takes its place
                continue
            except Timeout:
                if self.path.exists():
                    return False
            except OSError as error:
                if error.errno not in NO_LOCKS:
                    raise
                raise MagnetError(
                    self.path,
                    expected="a file system with file locks",
                    found=str(error),
                    remedy="mount it with locks (Lustre: -o flock), or put the store elsewhere",
                ) from error
            else:
                return True

    def release(self) -> None:
        """Remove the lock file and let go; no effect when the lock is not held."""
        if self._lock.is_locked:
            with suppress(FileNotFoundError):  # the whole store may have been removed meanwhile
                self.path.unlink()
            self._lock.release()

    def owner(self) -> str:
        """Who holds the lock, as the holder wrote it."""
        try:
            return self.path.read_text() or "a process that is just starting"
        except FileNotFoundError:
            return "a process that has just ended"

    def _sign(self, descriptor: int) -> None:
        """Write who holds the lock, provided that the path still names the file that was locked."""
        try:
            if not os.path.samestat(os.fstat(descriptor), self.path.stat()):
                raise _RemovedError
        except FileNotFoundError as error:
            raise _RemovedError from error
        command = " ".join((Path(sys.argv[0]).name, *sys.argv[1:2]))
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{socket.gethostname()}, process {os.getpid()} ({command})".encode(), 0)


def is_held(path: Path) -> bool:
    """Whether a live process holds the lock; nothing is written, so that any store can be asked."""
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)  # which lets go
    return False


class _RemovedError(Exception):
    """The file that was locked no longer has its name."""

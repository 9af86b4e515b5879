"""Where several commands share the study of a sweep: a database, or a journal file, both as Optuna has them.

In: what `--storage` says. Out: a storage of Optuna's. Whoever the address names as user, and their password, stay here:
messages and records have the `place` alone.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from optuna.exceptions import StorageInternalError
from optuna.storages import BaseStorage, JournalStorage, RDBStorage
from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, NoSuchModuleError, SQLAlchemyError

from cache.lock import FileLock
from magnet_core.errors import MagnetError

OPTION = "--storage"
KINDS = "postgresql://HOST/DATABASE, mysql://HOST/DATABASE or the path of a journal file"
PACKAGES = {"psycopg": "psycopg[binary]", "psycopg2": "psycopg2-binary", "MySQLdb": "mysqlclient"}  # of modules
JOURNAL_BEGINS = b'{"op_code"'
BLOCK = 4096  # bytes that are read at once in search of the end of a line


@dataclass(frozen=True)
class Storage:
    """A storage that several processes may use at the same time.

    place  as messages and records name it: an address without user, password and options, or the path of a journal
    url    the address of a database, None of a journal
    """

    place: str
    url: URL | None = field(default=None, repr=False)

    def recorded(self, folder: Path) -> str:
        """Name the place as the record in a sweep's folder does: a journal in it by its path from there."""
        path, inside = Path(self.place), folder.resolve()
        return str(path.relative_to(inside)) if self.url is None and path.is_relative_to(inside) else self.place

    @contextmanager
    def opened(self) -> Iterator[BaseStorage]:
        """Open it; while it is open, what a database refuses is one line."""
        if self.url is None:
            yield open_journal(Path(self.place))
            return
        storage = None
        try:
            storage = RDBStorage(self.url.render_as_string(hide_password=False), engine_kwargs={"pool_pre_ping": True})
            yield storage
        except (SQLAlchemyError, StorageInternalError) as error:
            raise MagnetError(
                self.place,
                expected="a database that takes and gives trials",
                found=self._hidden(_first_words(error)),
                remedy="check its address, its rights and the network, and give the command again: it goes on",
            ) from None  # whose traceback may show how the driver was called
        finally:
            if storage is not None:
                storage.remove_session()
                storage.engine.dispose()

    def _hidden(self, text: str) -> str:
        assert self.url is not None
        options = (value for name, value in self.url.query.items() if "pass" in name.lower())
        for secret in (self.url.password, *options):
            if isinstance(secret, str) and secret:
                text = text.replace(secret, "…")
        return text


def parse_storage(text: str) -> Storage:
    """Read what `--storage` says; what cannot be shared, or has no driver here, is an error."""
    if "://" not in text:
        if not text or Path(text).is_dir():
            raise MagnetError(OPTION, expected=KINDS, found=f"the folder '{text}'", remedy="name a file in it")
        return Storage(str(Path(text).resolve()))
    try:
        url = make_url(text)
    except (ArgumentError, ValueError):
        raise MagnetError(
            OPTION, expected=KINDS, found="an address that cannot be read", remedy="write it as one of them"
        ) from None  # whose text may have the password
    kind = url.get_backend_name()
    if kind == "sqlite":
        raise MagnetError(
            OPTION,
            expected=KINDS,
            found=f"{kind}://",
            remedy="name a journal file: SQLite's locks fail on network file systems, where several processes share it",
        )
    try:
        url.get_dialect().import_dbapi()
    except NoSuchModuleError:
        raise MagnetError(OPTION, expected=KINDS, found=f"{url.drivername}://", remedy="choose one of them") from None
    except ImportError as error:
        module = error.name or kind
        raise MagnetError(
            f"{OPTION} {url.drivername}://",
            expected=f"the package '{module}'",
            found="it is not installed",
            remedy=f"install it with: pip install '{PACKAGES.get(module, module)}'",
        ) from error
    bare = URL.create(kind, host=url.host, port=url.port, database=url.database)
    return Storage(bare.render_as_string(), url)


def open_journal(path: Path) -> JournalStorage:
    """Open a journal, made if there is none; a file of another kind is an error, and stays as it is."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.exists():
        with path.open("rb") as file:
            head = file.read(len(JOURNAL_BEGINS))
        if not JOURNAL_BEGINS.startswith(head):
            raise MagnetError(
                path, expected="a journal file of Optuna, or none yet", found="another file", remedy="name another path"
            )
    return JournalStorage(JournalFileBackend(str(path), lock_obj=JournalLock(path)))


class JournalLock(JournalFileOpenLock):
    """Who holds it writes to a journal.

    It is a lock of the kernel, which goes with a process that is killed, where Optuna's own lets others wait for 30 s.
    What such a process, or a full disk, has left of a line is removed, or the next one would be no line, either.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(str(path))
        self._path = path
        self._lock = FileLock(path.with_name(f"{path.name}.lock"))

    def acquire(self) -> bool:
        """Wait for the lock, and take it."""
        self._lock.acquire(wait=True)
        try:
            remove_torn_line(self._path)
        except OSError:
            self._lock.release()
            raise
        return True

    def release(self) -> None:
        """Let go of the lock."""
        self._lock.release()


def remove_torn_line(path: Path) -> None:
    """Cut a file off after its last whole line."""
    with path.open("rb+") as file:
        size = end = file.seek(0, os.SEEK_END)
        while end:
            start = max(0, end - BLOCK)
            file.seek(start)
            if (newline := file.read(end - start).rfind(b"\n")) >= 0:
                end = start + newline + 1
                break
            end = start
        if end < size:
            file.truncate(end)


def _first_words(error: Exception) -> str:
    """What a database's driver says, without the statement that it was asked."""
    cause = error.__cause__ if isinstance(error, StorageInternalError) and error.__cause__ else error
    return str(getattr(cause, "orig", None) or cause).strip().partition("\n")[0]

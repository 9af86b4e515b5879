"""The index of a store, store.json: its table of slides, with a checksum. Serves design section "The store".

In: the file's path, rows of a sample sheet. Out: the rows. A row has what `extract run` knows of a slide: `slide_id`,
`patient`, `image` with its `fingerprint`, `counts`, and the `sheet` it was last read from. A row is `stale` when that
sheet was read again without it. Indices of version 1 and 2 have no checksum, and their rows no sheet and fingerprint.
"""

import json
import platform
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

from cache.canonical import canonical_json
from cache.lock import FileLock, is_held
from magnet_core.errors import MagnetError, machine_error
from magnet_core.sealed import read_sealed, write_sealed

INDEX_VERSION = 3  # of store.json; every version up to this one is read

_SLIDE_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._\-]*")
_PACKAGES = ("magnet-hd", "numpy", "torch", "timm", "lmdb", "faiss-cpu", "faiss-gpu")
_EXPECTED = "the index of a store"
_REMEDY = "restore it, or delete it and run 'extract run' again: finished slides are kept"

Row = dict[str, Any]


class StoreIndex:
    """The file store.json, which many jobs may read and change at once: each change is made whole, under a lock."""

    def __init__(self, root: Path) -> None:
        self._path = root / "store.json"
        self._lock_path = self._path.with_name(f"{self._path.name}.lock")

    def create(self) -> None:
        """Write an index without slides where there is none."""
        self._change(lambda rows: rows)

    def read(self) -> dict[str, Any]:
        """Read all of it. A folder without it, damage and a newer version are one line each."""
        if not self._path.is_file():
            raise MagnetError(
                self._path.parent,
                expected="a store (a folder with store.json)",
                found="none",
                remedy="run 'extract run' first, or check the path",
            )
        content = read_sealed(self._path, expected=_EXPECTED, remedy=_REMEDY)
        version = content.get("schema_version")
        if type(version) is not int or version < 1:
            raise MagnetError(self._path, expected=_EXPECTED, found=f"schema version {version!r:.40}", remedy=_REMEDY)
        if version > INDEX_VERSION:
            raise MagnetError(
                self._path,
                expected=f"schema version {INDEX_VERSION} or older",
                found=f"version {version}",
                remedy="upgrade magnet-hd, or use the release that wrote the store",
            )
        rows = content.get("samples")
        if not isinstance(rows, list) or not all(_is_row(row) for row in rows):
            raise MagnetError(self._path, expected=_EXPECTED, found="no table of slides in 'samples'", remedy=_REMEDY)
        return content

    def rows(self) -> list[Row]:
        """Rows of all slides, ordered by slide id."""
        rows: list[Row] = self.read()["samples"]
        return rows

    def register(self, rows: Iterable[Mapping[str, object]]) -> None:
        """Add rows, each with its `slide_id`; the row of a slide that has one is replaced."""
        added = {check_slide_id(str(row["slide_id"])): json.loads(canonical_json(dict(row))) for row in rows}
        self._change(lambda before: list(({row["slide_id"]: row for row in before} | added).values()))

    def retire(self, sheet: str, named: Collection[str]) -> list[str]:
        """Mark as stale all slides last read from a sheet that names others now; return their ids."""

        def marked(rows: list[Row]) -> list[Row]:
            return [row | {"stale": True} if is_of_sheet(row) else row for row in rows]

        def is_of_sheet(row: Row) -> bool:
            return row.get("sheet") == sheet and row["slide_id"] not in named

        self._change(marked)
        return [row["slide_id"] for row in self.rows() if is_of_sheet(row)]

    def remove(self, slide_ids: Collection[str], *, where: Callable[[Row], bool] = lambda row: True) -> bool:
        """Take rows out of which `where` holds once nobody else can change them; tell whether all of them are gone."""
        self._change(lambda rows: [row for row in rows if row["slide_id"] not in slide_ids or not where(row)])
        return not any(row["slide_id"] in slide_ids for row in self.rows())

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keep all others from changing the index meanwhile."""
        lock = FileLock(self._lock_path)  # one of its own, so that threads keep each other out, too
        with writing(self._path):
            self._path.parent.mkdir(parents=True, exist_ok=True)
            lock.acquire(wait=True)
            try:
                yield
            finally:
                lock.release()

    def _change(self, change: Callable[[list[Row]], list[Row]]) -> None:
        """Replace the rows by `change` of them, in one step: readers see the old or the new.

        What changes nothing writes nothing, so that a store may be read-only once it is finished. While another process
        is changing it, what the file says now may be about to be otherwise: that is waited for.
        """
        is_changing = is_held(self._lock_path)  # asked first: who begins later sees all that was done before
        if not is_changing and self._path.is_file() and (rows := self.rows()) == _ordered(change(rows)):
            return
        with self.locked():
            before: dict[str, Any] = self.read() if self._path.is_file() else {"created": _now(), "samples": []}
            changed = _ordered(change(before["samples"]))
            if not self._path.is_file() or changed != before["samples"]:
                fields = {"schema_version": INDEX_VERSION, "provenance": package_versions(), "updated": _now()}
                write_sealed(self._path, before | fields | {"samples": changed})


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn what the file system reports when a store is changed into one line; full or read-only, a `PlaceError`."""
    try:
        yield
    except OSError as error:
        raise machine_error(error, where=path) from error


def patient_of(row: Mapping[str, Any]) -> str:
    """Return the patient of a row; a slide without one is its own."""
    return str(row.get("patient") or row["slide_id"])


def check_slide_id(slide_id: str) -> str:
    """Return the id if it may name a folder."""
    if not _SLIDE_ID.fullmatch(slide_id):
        raise MagnetError(
            "slide_id",
            expected="letters, digits and . _ - , beginning with a letter or digit",
            found=repr(slide_id),
            remedy="rename the slide in samples.csv",
        )
    return slide_id


def package_versions() -> dict[str, str]:
    """Versions of Python and of the packages that decide what is computed."""
    versions = {"python": platform.python_version()}
    for name in _PACKAGES:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return versions


def _is_row(row: object) -> bool:
    return isinstance(row, dict) and _SLIDE_ID.fullmatch(str(row.get("slide_id", ""))) is not None


def _ordered(rows: Iterable[Row]) -> list[Row]:
    return sorted(rows, key=lambda row: str(row["slide_id"]))


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")

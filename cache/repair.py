"""What in a store is stale, missing, damaged, orphaned or left over, and the remedy of each: `cache repair`.

In: a store. Out: findings, each with what its remedy removes; `mend` removes it. Files that are whole, registered and
in their place are in no finding, and what a live process is writing is let be. Two folders that were swapped, or
features in the folder of another slide, are told of and not removed, as all they need is their own name.
"""

import re
from collections.abc import Collection, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from cache.index import writing
from cache.listing import file_faults, misplaced, picture_faults
from cache.lock import FileLock, is_held
from cache.picture import PICTURE
from cache.reader import ArrayFile
from cache.store import Store
from magnet_core.console import human_bytes, progress
from magnet_core.errors import MagnetError

_CACHE_FILES = (".lmdb", ".partial", ".lock")
_LEFT_BY_A_WRITER = re.compile(r"store\.json\.\d+\.partial")


@dataclass(frozen=True)
class Finding:
    """One thing that is not as it should be.

    files   that the remedy removes
    row     the slide whose row of store.json it removes
    remedy  in words, what it removes or, where it removes nothing, what a person has to do
    """

    where: Path
    what: str
    remedy: str
    files: tuple[Path, ...] = ()
    row: str | None = None

    @property
    def is_mended_here(self) -> bool:
        """Whether there is a remedy that removes something."""
        return bool(self.files) or self.row is not None

    def line(self) -> str:
        """Format as text."""
        nbytes = sum(path.stat().st_size for path in self.files if path.exists())
        size = f" ({human_bytes(nbytes)})" if nbytes else ""
        return f"{self.where}: {self.what}; {self.remedy}{size}"


def survey(store: Store, slides: Collection[str] = ()) -> list[Finding]:
    """Read the whole store as `cache verify` does and list what is not as it should be; `slides` chooses folders."""
    registered = set(store.slide_ids())
    folders = sorted(path for path in store.root.iterdir() if path.is_dir() and (not slides or path.name in slides))
    findings = [] if slides else list(_of_index(store))
    for slide_id in sorted(registered & set(slides or registered)):
        findings += _of_row(store, slide_id)
    for folder in progress(folders, desc="repair", unit="slide"):
        held = {path for path in _cache_files(folder) if path.suffix == ".lock" and is_held(path)}
        if folder.name in registered:
            findings += _of_folder(store, folder, held)
        elif not held and (files := _cache_files(folder)):
            findings.append(_orphan(folder, files, any_slides=bool(registered)))
    return findings


def mend(store: Store, finding: Finding) -> bool:
    """Remove what a finding names; False where nothing can be removed, or another process has begun to write it."""
    if not finding.is_mended_here:
        return False
    for path in finding.files:
        lock = FileLock(_lock_of(path))
        with writing(path):
            if not lock.acquire(wait=False):
                return False
            try:
                if path != lock.path:
                    path.unlink(missing_ok=True)
            finally:
                lock.release()
    if finding.row is not None:
        store.unregister([finding.row])
    if finding.where.is_dir() and finding.where != store.root:
        with suppress(OSError):  # it holds other files
            finding.where.rmdir()
    return True


def _of_index(store: Store) -> Iterator[Finding]:
    """What is left beside store.json."""
    lock = store.root / "store.json.lock"
    if is_held(lock):
        return
    if lock.exists():
        yield Finding(lock, "a lock that nobody holds", "removes it", (lock,))
    for path in sorted(store.root.glob("store.json.*.partial")):
        if _LEFT_BY_A_WRITER.fullmatch(path.name):
            yield Finding(path, "left by a process that was stopped", "removes it", (path,))


def _of_row(store: Store, slide_id: str) -> Iterator[Finding]:
    """What is wrong with a row of store.json."""
    folder, geometry = store.root / slide_id, store.geometry_path(slide_id)
    row = next(row for row in store.samples() if row["slide_id"] == slide_id)
    if row.get("stale"):
        what = f"stale, as {row.get('sheet')} no longer names it"
        yield Finding(folder, what, "takes its row out of store.json; its files stay", row=slide_id)
    elif not geometry.exists() and not geometry.with_name(f"{geometry.name}.partial").exists():
        remedy = "takes its row out of store.json; 'extract run' makes both anew"
        yield Finding(folder, f"no {geometry.name}", remedy, row=slide_id)


def _of_folder(store: Store, folder: Path, held: Collection[Path]) -> Iterator[Finding]:
    """What is wrong with the files of a registered slide."""
    damaged = set()
    for path in _cache_files(folder):
        if _lock_of(path) in held:
            continue
        if path.suffix == ".lock":
            yield Finding(path, "a lock that nobody holds", "removes it", (path,))
        elif path.suffix == ".partial":
            what = "unfinished, and no process is at it; 'extract run' would go on with it"
            yield Finding(path, what, "removes it", (path,))
        elif faults := picture_faults(store, folder.name) if path.name == PICTURE else file_faults(path):
            damaged.add(path)
            what = f"damaged ({faults[0].removeprefix(f'{path}: ')})"
            yield Finding(path, what, "removes it, and 'extract run' makes it anew", (path,))
    for path, fault in misplaced(store, folder.name):
        if path not in damaged:
            yield _misplaced(store, path, fault)


def _misplaced(store: Store, path: Path, fault: str) -> Finding:
    """Features of a geometry that is gone are removed; what belongs to another slide of the store is not."""
    if path == store.geometry_path(path.parent.name):
        return Finding(
            path, fault.removeprefix(f"{path}: ").partition(";")[0], "give the folders their own names again"
        )
    with ArrayFile(path) as features:
        sought = features.header.get("geometry_digest")
    for other in store.slide_ids():
        with suppress(MagnetError), ArrayFile(store.geometry_path(other)) as geometry:
            if geometry.header.get("digest") == sought:
                return Finding(path, f"features of slide '{other}'", f"move it to {store.root / other}")
    return Finding(path, "features of a geometry that is gone", "removes it", (path,))


def _orphan(folder: Path, files: tuple[Path, ...], *, any_slides: bool) -> Finding:
    """A folder that store.json does not name."""
    what = "of no registered slide; 'extract run' with a sheet that names it takes it in"
    if not any_slides:  # as after store.json was lost: all that was extracted is here
        return Finding(folder, what, "removes nothing, as no slide at all is registered")
    return Finding(folder, what, f"removes its {len(files)} files", files)


def _lock_of(path: Path) -> Path:
    """Return the lock that a writer of a file holds."""
    if path.suffix == ".lock":
        return path
    if _LEFT_BY_A_WRITER.fullmatch(path.name):
        return path.with_name("store.json.lock")
    return path.with_name(f"{path.name.removesuffix('.partial')}.lock")


def _cache_files(folder: Path) -> tuple[Path, ...]:
    return tuple(sorted(path for path in folder.iterdir() if _is_ours(path)))


def _is_ours(path: Path) -> bool:
    return (path.suffix in _CACHE_FILES or path.name == PICTURE) and path.is_file()

"""What a run tells the store of its slides: which it makes, their rows, and which of them its sheet no longer names.

In: a sample sheet and a store. Out: rows in store.json, warnings, and an error for an image that has another name.
"""

import os
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

from cache.reader import ArrayFile
from cache.store import Store
from extract.samples import read_samples
from magnet_core.console import logger
from magnet_core.errors import MagnetError, PlaceError
from magnet_core.records import Sample

log = logger(__name__)


def leave_out_others(store: Store, sheet: Path) -> None:
    """Mark slides that were read from this sheet and are no longer in it, and warn of them in a line.

    The whole sheet counts, not the slides of it that are asked for; slides of other sheets stay as they are.
    """
    named = {sample.slide_id for sample in read_samples(sheet)}
    if stale := store.retire(str(sheet.resolve()), named):
        log.warning(
            "%s: in %s, but no longer in %s; left out of folds. Name them again, or see 'cache repair %s'",
            ", ".join(stale), store.root, sheet, store.root,
        )  # fmt: skip
    unknown = [row["slide_id"] for row in store.samples() if "sheet" not in row and row["slide_id"] not in named]
    if unknown:
        log.warning(
            "%s: in %s, but not in %s; if no sheet names them any more, delete their folders and run 'cache repair %s'",
            ", ".join(unknown), store.root, sheet, store.root,
        )  # fmt: skip


def refuse_second_name(store: Store, slide_id: str, fingerprint: str) -> None:
    """Refuse a slide whose image another current slide of the store has: the same tissue under two names."""
    for row in store.current_samples():
        if row["slide_id"] != slide_id and store.fingerprint(row) == fingerprint:
            other = row["slide_id"]
            raise MagnetError(
                f"slide '{slide_id}'",
                expected="an image that no other slide of the store has",
                found=f"that of '{other}', from {row.get('sheet', 'a sheet of before')}",
                remedy=f"keep one name; to give '{other}' up, delete {store.root / other} and run 'cache repair "
                f"{store.root} --yes'",
            )


def store_row(sample: Sample, store: Store, sheet: Path) -> dict[str, Any]:
    """Return the row of an extracted slide, see `cache.index`."""
    with ArrayFile(store.geometry_path(sample.slide_id)) as geometry:
        fingerprint = geometry.header["settings"]["image"]
    return {
        "slide_id": sample.slide_id,
        "patient": sample.patient,
        "platform": sample.platform,
        "image": str(sample.image.resolve()),
        "fingerprint": fingerprint,
        "counts": None if sample.counts is None else str(sample.counts.resolve()),
        "mpp": sample.mpp,
        "sheet": str(sheet.resolve()),
    }


def open_store(root: Path) -> Store:
    """Open a store, which may be read-only, or make one."""
    if (root / "store.json").exists():
        return Store(root)
    try:
        return Store.create(root)
    except OSError as error:
        raise PlaceError.of(error, where=root) from error


def being_made(store: Store, slide_id: str) -> AbstractContextManager[None]:
    """Keep the files of a slide that is not registered yet from being taken for nobody's."""
    if slide_id in store.slide_ids():
        return nullcontext()
    require_writable(store.root)
    return store.being_made(slide_id)


def register(store: Store, sample: Sample, sheet: Path, *, is_changed: bool) -> None:
    """Put a slide's row into the store's table; where nothing of the slide was written, only if it differs."""
    row = store_row(sample, store, sheet)
    if is_changed or row not in store.samples():
        require_writable(store.root)
        store.register([row])


def require_writable(root: Path) -> None:
    """Refuse to begin where nothing can be written."""
    if not os.access(root, os.W_OK):
        raise PlaceError(
            root,
            expected="a store that can be written to, as something is to do",
            found="no right to write there",
            remedy="mount it to be written to, or choose another --store",
        )

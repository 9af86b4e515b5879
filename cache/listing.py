"""What a store holds and what is wrong with it, as text: `cache info`, `cache verify`."""

from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from tabulate import tabulate

from cache.lmdb_file import AbsentFileError
from cache.picture import PICTURE
from cache.reader import ArrayFile
from cache.store import OtherSlideError, Store
from magnet_core.console import human_bytes, progress
from magnet_core.errors import MagnetError

OPTIONS_OF_FEATURES = ("token_grid", "own", "views", "stain", "precision")


def store_lines(store: Store) -> Iterator[str]:
    """Lines of a whole store: its slides, and what a killed run has left."""
    stale = store.stale_ids()
    yield f"{store.root}: {len(store.slide_ids())} slides"
    for slide_id in store.slide_ids():
        yield f"\n{slide_id}{' · stale: its sample sheet no longer names it' if slide_id in stale else ''}"
        try:
            yield from _slide_lines(store, slide_id)
        except MagnetError as error:
            yield f"  {error}"
    for path in store.unfinished():
        yield f"\nunfinished: {path} ({human_bytes(path.stat().st_size)})"


def store_faults(store: Store) -> tuple[int, list[str]]:
    """Read every block of every file; how many files were read, and what is wrong, each line beginning with a path."""
    paths = sorted(store.root.glob("*/*.lmdb"))
    faults = [f"{path}: unfinished; run 'extract run' again to resume it" for path in store.unfinished()]
    faults += [
        f"{store.geometry_path(slide_id)}: missing; run 'extract run' to make it"
        for slide_id in store.slide_ids()
        if store.geometry_path(slide_id) not in paths
    ]
    for path in progress(paths, desc="verify", unit="file"):
        faults += file_faults(path)
    for slide_id in store.slide_ids():
        faults += [fault for _, fault in misplaced(store, slide_id)]
        faults += picture_faults(store, slide_id)
    return len(paths) + len(list(store.root.glob(f"*/{PICTURE}"))), faults


def picture_faults(store: Store, slide_id: str) -> list[str]:
    """What is wrong with the picture of a slide, where it has one."""
    if not store.picture_path(slide_id).exists():
        return []
    header: dict[str, Any] = {}
    with suppress(MagnetError), store.laid_geometry(slide_id) as geometry:  # whose own faults are told elsewhere
        header = geometry.header
    try:
        store.stored_picture(slide_id, header)
    except MagnetError as error:
        return [str(error)]
    return []


def misplaced(store: Store, slide_id: str) -> list[tuple[Path, str]]:
    """Files in a slide's folder that are whole, but not this slide's, each with a line that begins with its path."""
    try:
        with store.laid_geometry(slide_id) as geometry:
            laid = geometry.header.get("digest")
    except OtherSlideError as error:
        return [(store.geometry_path(slide_id), str(error))]
    except MagnetError:  # absent or damaged, which is told elsewhere
        return []
    faults = []
    for path in sorted(store.geometry_path(slide_id).parent.glob("*.lmdb")):
        with suppress(MagnetError), ArrayFile(path) as file:
            if file.header.get("geometry_digest", laid) not in (None, laid):
                faults.append(
                    (path, f"{path}: of another geometry than that beside it; see 'cache repair {store.root}'")
                )
    return faults


def _slide_lines(store: Store, slide_id: str) -> list[str]:
    """Lines of one slide: a table for its geometry and one for each feature file."""
    try:
        with store.geometry(slide_id) as geometry:
            targets = geometry.header.get("targets") or ["none (H&E only)"]
            lines = [f"  geometry · targets: {', '.join(map(str, targets))}", *_array_lines(geometry)]
    except AbsentFileError:
        lines = ["  geometry · absent"]
    if store.picture_path(slide_id).exists():
        lines.append(f"  picture · {human_bytes(store.picture_path(slide_id).stat().st_size)}")
    for features in store.feature_files(slide_id):
        with ArrayFile(features.path) as arrays:
            settings = [f"settings {features.settings_digest}", *_made_with(arrays.header.get("settings", {}))]
            lines.append(f"  {features.backbone} · digest {features.digest} · {', '.join(settings)}")
            lines += _array_lines(arrays)
    return lines


def _made_with(settings: Mapping[str, Any]) -> list[str]:
    """The settings by which features of one backbone mostly differ; where nothing is said, the defaults were meant."""
    return [f"{name} {settings[name]}" for name in OPTIONS_OF_FEATURES if name in settings]


def _array_lines(arrays: ArrayFile) -> list[str]:
    """One line per array: name, rows, shape of a row, dtype, bytes."""
    specs = [arrays.spec(name) for name in arrays.names()]
    rows = [
        (
            spec.name,
            f"{spec.rows:,}",
            "×".join(map(str, spec.shape[1:])),
            "text" if spec.text else spec.dtype.lstrip("<|"),
            human_bytes(spec.nbytes),
        )
        for spec in specs
    ]
    headings, sides = ("array", "rows", "row", "dtype", "bytes"), ("left", "right", "right", "left", "right")
    table = tabulate(rows, headings, tablefmt="plain", disable_numparse=True, colalign=sides)
    return [f"    {line}" for line in table.splitlines()]


def file_faults(path: Path) -> list[str]:
    """What is wrong with one file, each line beginning with its path."""
    try:
        with ArrayFile(path) as arrays:
            return [f"{path}: {fault}; delete it and run 'extract run' again" for fault in arrays.verify()]
    except MagnetError as error:
        return [str(error)]

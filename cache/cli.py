"""The `cache` command: what a store holds, and whether it is whole.

In: a store's folder. Out: tables on stdout, progress on stderr, exit code 1 where something is wrong.
"""

from pathlib import Path
from typing import Annotated

import typer
from tqdm import tqdm

from cache.lmdb_file import AbsentFileError
from cache.reader import ArrayFile
from cache.store import Store
from magnet_core.console import human_bytes, run_app
from magnet_core.errors import MagnetError

app = typer.Typer(help="Look into a store of cached slides.", no_args_is_help=True)
StorePath = Annotated[Path, typer.Argument(help="the store's folder, with store.json", metavar="STORE")]


@app.callback()
def cache() -> None:
    """Look into a store of cached slides."""


@app.command()
def info(store: StorePath) -> None:
    """Show, per slide, the arrays of its geometry and of each backbone: rows, shape, bytes, digests."""
    opened = Store(store)
    typer.echo(f"{store}: {len(opened.slide_ids())} slides")
    for slide_id in opened.slide_ids():
        typer.echo(f"\n{slide_id}")
        typer.echo("\n".join(_slide_lines(opened, slide_id)))
    for path in opened.unfinished():
        typer.echo(f"\nunfinished: {path} ({human_bytes(path.stat().st_size)})")


@app.command()
def verify(store: StorePath) -> None:
    """Read every block of every file and compare it with its checksum; exit code 1 if anything is wrong."""
    opened = Store(store)
    paths = sorted(opened.root.glob("*/*.lmdb"))
    faults = [f"{path}: unfinished; run 'extract run' again to resume it" for path in opened.unfinished()]
    faults += [
        f"{opened.geometry_path(slide_id)}: missing; run 'extract run' to make it"
        for slide_id in opened.slide_ids()
        if opened.geometry_path(slide_id) not in paths
    ]
    for path in tqdm(paths, desc="verify", unit="file"):
        faults += _file_faults(path)
    for fault in faults:
        typer.echo(fault)
    typer.echo(f"{store}: {len(paths)} files read, {len(faults)} faults")
    if faults:
        raise typer.Exit(1)


def main() -> None:
    """Entry point of the `cache` command."""
    run_app(app)


def _slide_lines(store: Store, slide_id: str) -> list[str]:
    """Lines of one slide: a table for its geometry and one for each feature file."""
    try:
        with store.geometry(slide_id) as geometry:
            targets = geometry.header.get("targets") or ["none (H&E only)"]
            lines = [f"  geometry · targets: {', '.join(map(str, targets))}", *_array_lines(geometry)]
    except AbsentFileError:
        lines = ["  geometry · absent"]
    for features in store.feature_files(slide_id):
        lines.append(f"  {features.backbone} · digest {features.digest} · settings {features.settings_digest}")
        with ArrayFile(features.path) as arrays:
            lines += _array_lines(arrays)
    return lines


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
    table = [("array", "rows", "row", "dtype", "bytes"), *rows]
    name, count, shape, dtype, size = (max(map(len, column)) for column in zip(*table, strict=True))
    return [
        f"    {line[0]:<{name}}  {line[1]:>{count}}  {line[2]:>{shape}}  {line[3]:<{dtype}}  {line[4]:>{size}}"
        for line in table
    ]


def _file_faults(path: Path) -> list[str]:
    """What is wrong with one file, each line beginning with its path."""
    try:
        with ArrayFile(path) as arrays:
            return [f"{path}: {fault}; delete it and run 'extract run' again" for fault in arrays.verify()]
    except MagnetError as error:
        return [str(error)]

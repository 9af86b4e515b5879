"""The `cache` command: what a store holds, whether it is whole, and what comes into it and goes out of it.

In: a store's folder. Out: tables on stdout, progress on stderr, exit code 1 where something is wrong.
"""

from pathlib import Path
from typing import Annotated

import typer
from tabulate import tabulate

from cache.exchange import choose_features, export_features, import_features
from cache.export_h5ad import export_h5ad
from cache.lmdb_file import AbsentFileError
from cache.reader import ArrayFile
from cache.store import Store
from magnet_core.console import human_bytes, progress
from magnet_core.errors import MagnetError

app = typer.Typer(
    help="Look into a store of cached slides.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
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
    for path in progress(paths, desc="verify", unit="file"):
        faults += _file_faults(path)
    for fault in faults:
        typer.echo(fault)
    typer.echo(f"{store}: {len(paths)} files read, {len(faults)} faults")
    if faults:
        raise typer.Exit(1)


@app.command(name="import")
def import_command(
    features: Annotated[Path, typer.Argument(help="h5 file with features and coords (TRIDENT, CLAM, HEST)")],
    store: Annotated[Path, typer.Option(help="store that holds the slide's geometry")],
    slide: Annotated[str, typer.Option(help="slide_id")],
    level: Annotated[str, typer.Option(help="level whose rows get the features, such as spot or region")],
    backbone: Annotated[str, typer.Option(help="name to keep them under, for 'train fit --backbone'")],
    patch_px: Annotated[float | None, typer.Option(help="side of a patch in pixels, where the file lacks it")] = None,
    patch_level_mpp: Annotated[float | None, typer.Option(help="µm/px of those pixels; left out: level 0")] = None,
) -> None:
    """Take features that another tool has made into the store, matched to the rows of a level by position."""
    opened = Store(store)
    if patch_px is not None and patch_level_mpp is not None:
        with opened.geometry(slide) as geometry:
            patch_px *= patch_level_mpp / geometry.header["mpp"]
    done = import_features(features, opened, slide_id=slide, level=level, backbone=backbone, patch_px=patch_px)
    typer.echo(
        f"{slide}, {level}: {done.rows:,} rows from {done.patches:,} patches, {done.width} features; "
        f"patches of {done.patch_um:.1f} µm for rows of {done.level_patch_um:.1f} µm, "
        f"centres {done.offset_um:.1f} µm apart on average"
    )
    typer.echo(f"{'written' if done.changed else 'already there'}: {done.path}")


@app.command(name="export")
def export_command(
    store: StorePath,
    slide: Annotated[str, typer.Option(help="slide_id")],
    level: Annotated[str, typer.Option(help="level, such as bin_008um, spot or region")],
    to: Annotated[Path, typer.Option(help="x.h5: features and coords; x.h5ad: AnnData with raw counts")],
    backbone: Annotated[str | None, typer.Option(help="whose features; left out: the only ones")] = None,
) -> None:
    """Write one level of a slide for other tools."""
    opened = Store(store)
    if to.suffix == ".h5ad":
        chosen = choose_features(opened, slide, backbone) if backbone or opened.feature_files(slide) else None
        features = None if chosen is None else ArrayFile(chosen.path)
        rows = export_h5ad(opened, to, slide_id=slide, level=level, features=features)
    elif to.suffix in {".h5", ".hdf5"}:
        rows = export_features(opened, to, slide_id=slide, level=level, backbone=backbone)
    else:
        raise MagnetError("--to", expected="a name ending in .h5 or .h5ad", found=f"'{to}'", remedy="rename it")
    typer.echo(f"{slide}, {level}: {rows:,} rows -> {to}")


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
    headings, sides = ("array", "rows", "row", "dtype", "bytes"), ("left", "right", "right", "left", "right")
    table = tabulate(rows, headings, tablefmt="plain", disable_numparse=True, colalign=sides)
    return [f"    {line}" for line in table.splitlines()]


def _file_faults(path: Path) -> list[str]:
    """What is wrong with one file, each line beginning with its path."""
    try:
        with ArrayFile(path) as arrays:
            return [f"{path}: {fault}; delete it and run 'extract run' again" for fault in arrays.verify()]
    except MagnetError as error:
        return [str(error)]

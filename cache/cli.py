"""The `cache` command: what a store holds, whether it is whole, and what comes into it and goes out of it.

In: a store's folder. Out: tables on stdout, progress on stderr, exit code 1 where something is wrong.
"""

from pathlib import Path
from typing import Annotated

import typer

from magnet_core.commandline import command_line
from magnet_core.console import importing
from magnet_core.errors import MagnetError

app = command_line("Look into a store of cached slides.")
StorePath = Annotated[Path, typer.Argument(help="the store's folder, with store.json", metavar="STORE")]


@app.command()
def info(store: StorePath) -> None:
    """Show, per slide, the arrays of its geometry and of each backbone: rows, shape, bytes, digests."""
    with importing():
        from cache.listing import store_lines
        from cache.store import Store

    for line in store_lines(Store(store)):
        typer.echo(line)


@app.command()
def verify(store: StorePath) -> None:
    """Read every block of every file and compare it with its checksum; exit code 1 if anything is wrong."""
    with importing():
        from cache.listing import store_faults
        from cache.store import Store

    files, faults = store_faults(Store(store))
    for fault in faults:
        typer.echo(fault)
    typer.echo(f"{store}: {files} files read, {len(faults)} faults")
    if faults:
        raise typer.Exit(1)


@app.command()
def repair(
    store: StorePath,
    slide: Annotated[list[str] | None, typer.Option(help="slide_id to look at alone; may be given again")] = None,
    yes: Annotated[bool, typer.Option("--yes", help="remove what is listed")] = False,
) -> None:
    """List what is stale, missing, damaged, orphaned or left over, and what the remedy of each removes.

    Nothing is removed without --yes; exit code 1 while something is left to mend. What is good and registered stays.
    """
    with importing():
        from cache.repair import mend, survey
        from cache.store import Store

    opened = Store(store)
    left = findings = survey(opened, slide or ())
    for finding in findings:
        typer.echo(finding.line())
    if yes:
        left = [finding for finding in findings if not mend(opened, finding)]
    mended = len(findings) - len(left)
    hint = "; --yes does what is listed" if left and not yes else ""
    typer.echo(f"{store}: {len(findings)} found, {mended} mended{hint}")
    if left:
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
    with importing():
        from cache.exchange import import_features
        from cache.store import Store

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
    if to.suffix not in {".h5", ".hdf5", ".h5ad"}:
        raise MagnetError("--to", expected="a name ending in .h5 or .h5ad", found=f"'{to}'", remedy="rename it")
    with importing():
        from cache.exchange import choose_features, export_features
        from cache.export_h5ad import export_h5ad
        from cache.reader import ArrayFile
        from cache.store import Store

    opened = Store(store)
    if to.suffix == ".h5ad":
        chosen = choose_features(opened, slide, backbone) if backbone or opened.feature_files(slide) else None
        features = None if chosen is None else ArrayFile(chosen.path)
        rows = export_h5ad(opened, to, slide_id=slide, level=level, features=features)
    else:
        rows = export_features(opened, to, slide_id=slide, level=level, backbone=backbone)
    typer.echo(f"{slide}, {level}: {rows:,} rows -> {to}")

"""The command `train report`."""

from pathlib import Path
from typing import Annotated

import typer

from magnet_core.console import human_bytes, importing
from magnet_core.errors import MagnetError
from train.commands.options import split_names
from train.places import check_result


def report_command(
    folders: Annotated[list[Path], typer.Argument(help="Folders of train study, cv, fit or sweep.")],
    out: Annotated[Path, typer.Option(help="The page to write.")] = Path("report.html"),
    genes: Annotated[
        str | None, typer.Option(help="Maps that lie inside a large page, not in the folder beside it: EPCAM,CD3E.")
    ] = None,
    store: Annotated[Path | None, typer.Option(help="Where the store of the results has moved to.")] = None,
) -> None:
    """Make one HTML page of results that needs no network and no other file."""
    wanted = split_names("--genes", genes) or ()
    for folder in folders:
        check_result(folder)
    if out.is_dir():
        raise MagnetError("--out", expected="a file to write", found=f"the folder {out}", remedy="name a page in it")
    with importing():
        from train.report.page import write_report

    page = write_report(folders, out, store=store, genes=wanted)
    typer.echo(f"report: {page} ({human_bytes(page.stat().st_size)})")

"""The command `train report`."""

from pathlib import Path
from typing import Annotated

import typer

from magnet_core.console import human_bytes, importing
from magnet_core.errors import MagnetError
from train.places import check_result


def report_command(
    folders: Annotated[list[Path], typer.Argument(help="Folders of train study, cv, fit or sweep.")],
    out: Annotated[Path, typer.Option(help="The page to write.")] = Path("report.html"),
) -> None:
    """Make one HTML page of results that needs no network and no other file."""
    for folder in folders:
        check_result(folder)
    if out.is_dir():
        raise MagnetError("--out", expected="a file to write", found=f"the folder {out}", remedy="name a page in it")
    with importing():
        from train.report.page import write_report

    page = write_report(folders, out)
    typer.echo(f"report: {page} ({human_bytes(page.stat().st_size)})")

"""Where results lie, by which file each is known, and the way from one to another; without anything slow to import.

The one reader of these files, which compares their checksums: `read_result`.

runs/NAME/study.json        a table of `train fit`, `cv` or `study`
runs/NAME/sweep.json        a sweep
runs/cells/CELL/cell.json   a cell: one system, one fold; MagNet's has run.json and model.safetensors beside it
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from magnet_core.errors import MagnetError
from magnet_core.sealed import read_sealed

CELLS = "cells"
TABLE, SWEEP, CELL = "study.json", "sweep.json", "cell.json"  # a table and a cell are whole where theirs is
MEMBERS = "members"  # of an ensemble's cell: names of the cells, of a seed each, of which it is the mean
RUN, WEIGHTS = "run.json", "model.safetensors"
# What is in a table's folder; some of it is read back, and then recorded in the table's file with its checksum.
READ_BACK = ("table.csv", "genes.parquet", "slides.parquet", "pivotal.csv", "maps-*.png")
OF_A_TABLE = (*READ_BACK, "table.txt", "table.md", "table.tex", "pivotal.txt", "pivotal.md", "figure.png", "*.partial")
FORMER_FIT = "summary.json"  # a fit of version 0.1 ended with it


def anew(path: Path) -> str:
    """Say how a result is made again, one of whose files is damaged: `path` is the file that makes its folder whole."""
    folder = path.parent
    if path.name in (TABLE, SWEEP):
        return f"delete {path}, and give the command that made it again: what is computed beside it stays"
    return f"delete the folder {folder}, and give the command that made it again: it is computed anew"


def read_result(path: Path, keys: Sequence[str] = ()) -> dict[str, Any]:
    """Read run.json, cell.json, study.json or sweep.json, which must have these keys; a damaged one is an error."""
    content = read_sealed(path, expected=f"{path.name} of a finished result", remedy=anew(path))
    if missing := [key for key in keys if key not in content]:
        raise MagnetError(path, expected=", ".join(keys), found=f"no {', '.join(missing)}", remedy=anew(path))
    return content


def read_record(folder: Path) -> dict[str, Any]:
    """What the table in a folder was made of."""
    return read_result(folder / TABLE, ("title", "rows", "folds", "config"))


def read_run(folder: Path) -> dict[str, Any]:
    """What a trained run in a folder needs to be used."""
    return read_result(folder / RUN, ("config", "panel"))


def read_back(folder: Path) -> list[str]:
    """Names of the files of a table that its page reads, as far as they are there."""
    return sorted(path.name for pattern in READ_BACK for path in folder.glob(pattern))


def find_cell(cell: str, folder: Path) -> Path:
    """Where a cell lies: as the record has it, from where the study was run, or beside the study that was moved."""
    beside = folder.resolve().parent / "cells" / Path(cell).name
    return beside if beside.is_dir() else Path(cell)


def our_cell(folder: Path) -> Path:
    """The folder of the one cell that a table's main row has; a table of several folds or rows is an error."""
    cells = _main_cells(folder)
    if len(cells) != 1:
        listed = ", ".join(map(str, cells)) or "none"
        raise MagnetError(
            folder,
            expected="a result of one fold",
            found=f"{len(cells)} cells: {listed}",
            remedy="name one; 'train predict --ensemble' takes the mean over all of them",
        )
    return cells[0]


def our_cells(folder: Path) -> list[Path]:
    """The folders of trained runs that a folder stands for: itself, its members, or those of a table's main row."""
    if folder.is_dir() and not (folder / RUN).is_file() and (folder / TABLE).is_file():
        return [run for cell in _main_cells(folder) for run in our_cells(cell)]
    if members := members_in(folder):
        return [trained_run(member) for member in members]
    return [trained_run(folder)]


def members_in(folder: Path) -> list[Path]:
    """Folders of the cells of which the cell in a folder is the mean; none where it is no ensemble's."""
    is_cell = (folder / CELL).is_file() and not (folder / RUN).is_file()
    names = read_result(folder / CELL).get(MEMBERS, []) if is_cell else []
    return [folder.parent / name for name in names]


def _main_cells(folder: Path) -> list[Path]:
    rows = read_record(folder)["rows"]
    return [find_cell(cell, folder) for row in rows if row["ours"] for cell in row["cells"]]


def trained_run(folder: Path) -> Path:
    """The folder of a trained run: the one that is named, or, of a fit, that of MagNet's cell."""
    if not folder.is_dir():
        raise MagnetError(folder, expected="the folder of a run", found="no folder", remedy="correct the path")
    if not (folder / RUN).is_file() and (folder / TABLE).is_file():
        table, folder = folder, our_cell(folder)
        if not folder.is_dir():
            raise MagnetError(
                table,
                expected=f"its cell {folder}",
                found="none there",
                remedy=f"copy {CELLS}/{folder.name} beside it, too",
            )
    if members := members_in(folder):
        raise MagnetError(
            folder, expected="a run of one seed", found=f"an ensemble of {len(members)}",
            remedy="pass --ensemble, for their mean and the sd between them; or name one of its members",
        )  # fmt: skip
    if not (folder / RUN).is_file():
        raise MagnetError(
            folder,
            expected=f"a finished run with {RUN}",
            found="none",
            remedy="give the folder of 'train fit', or that of a cell of MagNet (RUNS/cells/magnet-…)",
        )
    return folder


def check_result(folder: Path) -> None:
    """Refuse a folder that holds no finished table or sweep."""
    if not folder.is_dir():
        raise MagnetError(
            folder,
            expected="the folder of a result",
            found="no folder",
            remedy="correct the path, or give its command again where it was stopped",
        )
    if (folder / TABLE).is_file() or (folder / SWEEP).is_file():
        return
    if (folder / FORMER_FIT).is_file():
        raise MagnetError(
            folder,
            expected=f"a result with {TABLE}",
            found="a fit of version 0.1",
            remedy="give 'train fit' with its settings again, under another --name; 'train predict' reads it as it is",
        )
    inside = ", ".join(map(str, _results_in(folder)[:3]))
    raise MagnetError(
        folder,
        expected=f"{TABLE} (of train fit, cv or study), {SWEEP} (of train sweep)",
        found="none of them",
        remedy=f"name a result in it: {inside}"
        if inside
        else "name a result's folder; where its command was stopped, give that again: it goes on",
    )


def _results_in(folder: Path) -> list[Path]:
    """Folders of finished tables and sweeps, a level below."""
    return sorted(path.parent for name in (TABLE, SWEEP) for path in folder.glob(f"*/{name}"))

"""The cells of a table's rows, fold by fold, as far as they are on disk; imports nothing slow.

In: a table's record and folder. Out: `Cells` of each fold of a group of rows.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from magnet_core.records import Genes
from magnet_core.settings.normalise import NormaliseConfig
from train.places import CELL, find_cell, read_result


@dataclass(frozen=True)
class Cells:
    """The cell of each row of a group on one fold: folders by title, and what the first one says of all of them.

    names      of the systems, by title
    normalise  how counts became expression
    """

    folders: Mapping[str, Path]
    names: Mapping[str, str]
    ours: str
    target_um: int
    panel: Genes
    normalise: NormaliseConfig
    train: tuple[str, ...]
    test: tuple[str, ...]


def cells_of(record: Mapping[str, Any], folder: Path, group: str) -> list[Cells]:
    """Return the cells of a group's rows, fold by fold; rows whose cells are gone are left out."""
    folds: dict[int, dict[str, tuple[Path, dict[str, Any]]]] = {}
    rows = [row for row in record["rows"] if row["group"] == group]
    for row in rows:
        for path in (find_cell(cell, folder) for cell in row["cells"]):
            if (path / CELL).is_file():
                description = read_result(path / CELL, ("system", "settings", "fold", "panel"))
                folds.setdefault(description["fold"]["index"], {})[row["title"]] = path, description
    ours = [row["title"] for row in rows if row["ours"]]
    return [_cells(of_fold, ours) for _, of_fold in sorted(folds.items())]


def panel_of(description: Mapping[str, Any]) -> Genes:
    """The panel of a cell, as its description has it."""
    return Genes(np.array(description["panel"]["id"]), np.array(description["panel"]["name"]))


def _cells(of_fold: Mapping[str, tuple[Path, Mapping[str, Any]]], ours: Sequence[str]) -> Cells:
    """What the cells of one fold share is what the first of ours, or of all, says."""
    title = next((each for each in ours if each in of_fold), next(iter(of_fold)))
    description = of_fold[title][1]
    data = description["settings"]["data"]
    return Cells(
        {each: path for each, (path, _) in of_fold.items()},
        {each: told["system"] for each, (_, told) in of_fold.items()},
        title,
        data["target"],
        panel_of(description),
        NormaliseConfig.build(data["normalise"], where=title),
        tuple(description["fold"]["train"]),
        tuple(description["fold"]["test"]),
    )

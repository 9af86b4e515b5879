"""Finished cells, and the faults of those that failed: what a table is made of."""

from dataclasses import dataclass

from train.studies.cell import Cell, CellResult


@dataclass(frozen=True)
class Results:
    """Finished cells, and the one-line faults of those that failed."""

    cells: dict[Cell, CellResult]
    faults: dict[Cell, str]

"""Computing the cells that a table lacks, one after the other; a cell that fails is told of, and the others go on.

In: cells. Out: their results, and the faults. Slides, panel and labels of a fold are opened once for all its cells. Of
a fold's test slides a system gets pixels and features; their labels are read afresh after its prediction.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from cache.lock import FileLock
from cache.store import Store
from magnet_core.console import progress
from magnet_core.errors import MagnetError
from train.data.fold_sides import FoldSides, check_same_settings, open_fold, open_from_store
from train.data.slide import Slide
from train.settings.fit import DataConfig
from train.studies.cell import FINISHED, Cell, CellResult, compute, read

CELLS = "cells"


@dataclass(frozen=True)
class Results:
    """Finished cells, and the one-line faults of those that failed."""

    cells: dict[Cell, CellResult]
    faults: dict[Cell, str]


def run_cells(cells: Sequence[Cell], runs: Path) -> Results:
    """Compute the cells that are not there yet, and read all of them; equal cells are computed once.

    Several processes may be given the same cells: each takes those that no other one is at, and waits for the rest.
    """
    folders = {cell: cell.folder(runs / CELLS, Store(cell.config.data.store)) for cell in cells}
    missing = {folder: cell for cell, folder in folders.items() if not (folder / FINISHED).exists()}
    there = len(set(folders.values())) - len(missing)
    if there:
        tqdm.write(f"{there} of {there + len(missing)} cells are finished already")
    # Cells of one fold follow each other, so that it is opened once.
    ordered = sorted(missing.items(), key=lambda item: (_data_key(item[1].config.data), item[1].fold.index))
    faults: dict[Path, str] = {}
    folds = OpenFold()
    with progress(total=len(ordered), desc="cells", unit="cell", disable=not ordered) as bar:
        taken = [item for item in ordered if not _run_cell(*item, folds, faults, bar, wait=False)]
        for folder, cell in taken:
            _run_cell(folder, cell, folds, faults, bar, wait=True)
    results: dict[Cell, CellResult] = {}
    for cell, folder in folders.items():
        if folder in faults:
            continue
        try:
            results[cell] = read(cell, folder)
        except MagnetError as error:
            faults[folder] = f"{cell.title}: {error}"
            tqdm.write(f"failed: {faults[folder]}")
    return Results(results, {cell: faults[folder] for cell, folder in folders.items() if folder in faults})


def _run_cell(folder: Path, cell: Cell, folds: "OpenFold", faults: dict[Path, str], bar: tqdm, *, wait: bool) -> bool:
    """Compute a cell, unless another process is at it; False then, or, with `wait`, when that process is done."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder.with_name(f"{folder.name}.lock"))
    bar.set_postfix_str(f"waiting for {cell.title}, by {lock.owner()}" if wait else cell.title)
    if not lock.acquire(wait=wait):
        return False
    try:
        if not (folder / FINISHED).exists():
            compute(cell, folder, folds.open(cell))
    except (MagnetError, torch.OutOfMemoryError, np.linalg.LinAlgError) as error:
        faults[folder] = f"{cell.title}: {in_one_line(error)}"
        tqdm.write(f"failed: {faults[folder]}")
    finally:
        lock.release()
    bar.update()
    return True


def in_one_line(error: Exception) -> str:
    """Say what failed, and what may help."""
    if isinstance(error, torch.OutOfMemoryError):
        return "the GPU's memory is too small; set compute.micro_batch=16, or a smaller batch_size of the system"
    return str(error).partition("\n")[0]


class OpenFold:
    """The fold that was opened last, and the slides of its data."""

    def __init__(self) -> None:
        self._slides: dict[str, Slide] = {}
        self._data: tuple[str, ...] = ()
        self._sides: tuple[tuple[object, ...], FoldSides] | None = None

    def open(self, cell: Cell) -> FoldSides:
        """Return the sides of a cell's fold."""
        key = (cell.config.data, cell.fold)
        if self._sides is None or self._sides[0] != key:
            self._sides = None  # let go of the labels of the fold before
            self._sides = key, open_fold(cell.config, fold=cell.fold, open_slides=self._open_slides)
        return self._sides[1]

    def _open_slides(self, slide_ids: Sequence[str], config: DataConfig) -> list[Slide]:
        if self._data != _data_key(config):
            self._slides, self._data = {}, _data_key(config)
        missing = [slide_id for slide_id in slide_ids if slide_id not in self._slides]
        self._slides |= {slide.slide_id: slide for slide in open_from_store(missing, config)}
        return check_same_settings([self._slides[slide_id] for slide_id in slide_ids], config)


def _data_key(config: DataConfig) -> tuple[str, ...]:
    """What decides the slides that are open."""
    return (str(config.store), f"{config.target:03d}", config.backbone, config.settings_digest, str(config.standardise))

"""The fold that cells are computed on: its slides, panel and labels are opened once for all its cells.

In: cells, one after the other. Out: `FoldSides`. A system gets only pixels and features of a fold's test slides; their
labels are read afresh after its prediction.
"""

from collections.abc import Sequence

from train.data.fold_sides import FoldSides, check_same_settings, open_fold, open_from_store
from train.data.slide import Slide
from train.settings.fit import DataConfig
from train.studies.cell import Cell


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
            self._sides = None  # free the labels of the previous fold
            self._sides = key, open_fold(cell.config, fold=cell.fold, open_slides=self._open_slides)
        return self._sides[1]

    def _open_slides(self, slide_ids: Sequence[str], config: DataConfig) -> list[Slide]:
        if self._data != data_key(config):
            self._slides, self._data = {}, data_key(config)
        missing = [slide_id for slide_id in slide_ids if slide_id not in self._slides]
        self._slides |= {slide.slide_id: slide for slide in open_from_store(missing, config)}
        return check_same_settings([self._slides[slide_id] for slide_id in slide_ids], config)


def data_key(config: DataConfig) -> tuple[str, ...]:
    """Return the settings that decide which slides are open."""
    return (str(config.store), f"{config.target:03d}", config.backbone, config.settings_digest, str(config.standardise))

"""What each table of the paper consists of: its rows, and the cells behind them.

In: a `StudyConfig` and the folds. Out: a `Plan`. One store, one set of folds, one panel and one set of metrics hold for
all rows; rows that ask for the same cell share it, across tables too.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from cache.store import Store
from magnet_core.console import notice
from train.data.fold_choice import without_pixels
from train.data.folds import Fold
from train.settings.fit import FitConfig
from train.settings.protocols import PROTOCOLS, Pooling
from train.studies.cell import Cell
from train.studies.published import BACKBONES, BASELINES, BLOCKS, Figures
from train.studies.settings import StudyConfig
from train.systems.table import MAGNET, NOISE_CEILING, SYSTEMS, title_of

ALL_BLOCKS: dict[str, tuple[str, Callable[[FitConfig], FitConfig]]] = {
    "neither": (
        "w/o GAT & multi-resolution",
        lambda config: config.changed(model={"use_gat": False, "use_multires": False}),
    ),
    "no_gat": ("w/o GAT", lambda config: config.changed(model={"use_gat": False})),
    "no_multires": (
        "w/o multi-resolution",
        lambda config: config.changed(model={"use_multires": False}),
    ),
    "no_consistency": (
        "w/o consistency loss",
        lambda config: config.changed(loss={"consistency": False}),
    ),
    "full": ("all blocks", lambda config: config),
}
HIGH_RESOLUTION_ONLY = ("neither", "no_multires", "full")  # the paper's Table 3


@dataclass(frozen=True)
class Row:
    """One row of a table: the cells of its folds, and the paper's figures for it.

    group    rows of one group are compared with each other: those of one target
    is_ours  the row the others are compared with
    """

    group: str
    title: str
    cells: tuple[Cell, ...]
    is_ours: bool = False
    published: Figures | None = None


@dataclass(frozen=True)
class Plan:
    """One table: its title, its rows, for each group the noise ceiling's cells, and how test slides add up."""

    name: str
    title: str
    rows: tuple[Row, ...]
    ceilings: dict[str, tuple[Cell, ...]]
    pooling: Pooling = "equal"

    @property
    def cells(self) -> list[Cell]:
        """All cells of the table."""
        of_rows = [cell for row in self.rows for cell in row.cells]
        return of_rows + [cell for cells in self.ceilings.values() for cell in cells]


class Planner:
    """Makes the cells of rows, one cell for each fold."""

    def __init__(self, config: StudyConfig, folds: Sequence[Fold]) -> None:
        self._config = config
        self._folds = folds
        self._pooling: Pooling = PROTOCOLS[config.protocol].pooling

    def cells(self, system: str, config: FitConfig) -> tuple[Cell, ...]:
        """Return the cells of one system, or of the noise ceiling."""
        rivals = self._config.rivals
        return tuple(Cell(system, config.changed(fold=fold.index), fold, rivals) for fold in self._folds)

    def at(self, target: int, **data: Any) -> FitConfig:
        """Return the study's configuration for a target, and other changes of its data."""
        return self._config.fit.changed(data={"target": target, **data})

    def baselines(self, targets: Sequence[int], systems: Sequence[str], *, name: str, title: str) -> Plan:
        """Table 1: systems by target."""
        rows, systems = [], self._with_their_data(systems)
        for target in targets:
            for system in systems:
                published = BASELINES.get((target, system))
                cells = self.cells(system, self.at(target))
                rows.append(Row(group(target), title_of(system), cells, system == MAGNET, published))
                if system == MAGNET:
                    rows += self._seeds(target, cells)
        return Plan(name, title, tuple(rows), self._ceilings(targets), self._pooling)

    def blocks(self, targets: Sequence[int], variants: Sequence[str], *, name: str, title: str) -> Plan:
        """Tables 2 and 3: MagNet without some of its blocks."""
        rows = []
        for target in targets:
            for variant in variants:
                label, change = ALL_BLOCKS[variant]
                cells = self.cells(MAGNET, change(self.at(target)))
                rows.append(Row(group(target), label, cells, variant == "full", BLOCKS.get((target, variant))))
        return Plan(name, title, tuple(rows), self._ceilings(targets), self._pooling)

    def backbones(self, targets: Sequence[int], backbones: Sequence[str], *, name: str, title: str) -> Plan:
        """Table 4: MagNet on the features of several backbones, with subgraphs of one size for all of them."""
        rows = []
        for target in targets:
            for index, backbone in enumerate(backbones):
                config = self.at(target, backbone=backbone, settings_digest="")
                cells = self.cells(MAGNET, config)
                rows.append(Row(group(target), backbone, cells, index == 0, BACKBONES.get((target, backbone))))
        return Plan(
            name, title, tuple(rows), self._ceilings(targets, backbone=backbones[0], settings_digest=""), self._pooling
        )

    def _with_their_data(self, systems: Sequence[str]) -> Sequence[str]:
        """Leave out systems that read pixels where the store has none."""
        kept = [system for system in systems if not (system in SYSTEMS and SYSTEMS[system].reads_pixels)]
        if len(kept) == len(systems) or not without_pixels(Store(self._config.fit.data.store), self._folds):
            return systems
        left_out = ", ".join(title_of(system) for system in systems if system not in kept)
        notice(f"left out, as the store has no pixels ('extract run' without --no-pixels adds them): {left_out}")
        return kept

    def _seeds(self, target: int, cells: Sequence[Cell]) -> list[Row]:
        """MagNet by each seed alone, where its row is the mean of several."""
        by_seed = zip(*(cell.members for cell in cells), strict=True)
        title = title_of(MAGNET)
        return [Row(group(target), f"{title}, seed {of[0].config.seed} alone", tuple(of)) for of in by_seed]

    def _ceilings(self, targets: Sequence[int], **data: Any) -> dict[str, tuple[Cell, ...]]:
        return {group(target): self.cells(NOISE_CEILING, self.at(target, **data)) for target in targets}


def group(target: int) -> str:
    """Name a target as the tables do."""
    return f"{target} µm"

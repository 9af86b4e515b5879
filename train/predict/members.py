"""The runs that predict together: one, or the members of an ensemble, and what they must have in common.

In: folders as the user names them. Out: the folders of trained runs, and their panels. Imports nothing slow.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from magnet_core.console import notice
from magnet_core.errors import MagnetError
from magnet_core.records import Genes
from train.learning.stage_one import StageOne
from train.places import RUN, anew, our_cells, trained_run

# P genes that are kept


@dataclass(frozen=True)
class Member:
    """One trained run: its folder, its description, its panel, and the columns (P,) of it that are kept."""

    folder: Path
    description: Mapping[str, Any]
    panel: Genes
    columns: np.ndarray


def member_folders(named: Sequence[Path], *, ensemble: bool) -> list[Path]:
    """Folders of the trained runs: the one that is named, or all members of an ensemble."""
    if not ensemble:
        if len(named) == 1:
            return [trained_run(named[0])]
        raise MagnetError(
            "RUN",
            expected="one run",
            found=f"{len(named)}",
            remedy="name one; or pass --ensemble, for the mean of their predictions",
        )
    folders = [folder for run in named for folder in our_cells(run)]
    members = list({folder.resolve(): folder for folder in folders}.values())
    if len(members) < 2:
        raise MagnetError(
            "--ensemble",
            expected="several trained runs",
            found=f"{len(members)}",
            remedy="name further ones, or the table of 'train cv', whose folds are its members",
        )
    return members


def panel_of(folder: Path, description: Mapping[str, Any]) -> Genes:
    """Return the panel of a run; a description without one, or without its store, is an error."""
    try:
        str(description["config"]["data"]["store"])
        return Genes(np.array(description["panel"]["id"]), np.array(description["panel"]["name"]))
    except (KeyError, TypeError) as error:
        raise MagnetError(
            folder / RUN, expected="the panel and the store of a run", found=f"no {error}", remedy=anew(folder / RUN)
        ) from error


def common_panel(panels: Sequence[Genes]) -> Genes:
    """Return the genes that all panels have, in the order of the first; that some are left out is said."""
    first, *others = panels
    shared = np.all([np.isin(first.ids, other.ids) for other in others] or [np.ones(len(first), bool)], axis=0)
    if shared.all():
        return first
    if not shared.any():
        raise MagnetError(
            "--ensemble", expected="runs with genes in common", found="none", remedy="name runs of one data set"
        )
    notice(f"{shared.sum()} of {len(first)} genes are in the panels of all {len(panels)} runs; the others are left out")
    return Genes(first.ids[shared], first.names[shared])


def columns_in(panel: Genes, genes: Genes) -> np.ndarray:
    """Return the column (P,) of each gene in a panel that has them all."""
    column_of = {gene: column for column, gene in enumerate(panel.ids.tolist())}
    return np.array([column_of[gene] for gene in genes.ids.tolist()], np.int64)


def check_alike(members: Sequence[Member]) -> None:
    """Refuse members that predict other rows than the first, or values of another meaning."""
    for name in ("target", "backbone", "normalise"):
        values = [member.description["config"]["data"].get(name) for member in members]
        if (other := next((number for number, value in enumerate(values) if value != values[0]), 0)) != 0:
            raise MagnetError(
                members[other].folder,
                expected=f"data.{name} {values[0]}, as {members[0].folder.name} has",
                found=str(values[other]),
                remedy="name runs that differ in fold and seed alone",
            )


def check_made_alike(members: Sequence[Member], made: Sequence[StageOne]) -> None:
    """Refuse members whose features were made in another way than those of the first: one pass serves them all."""
    for member, stage_one in zip(members, made, strict=True):
        if stage_one.decides() != made[0].decides():
            raise MagnetError(
                member.folder,
                expected=f"features made as those of {members[0].folder.name}",
                found="other settings of 'extract run'",
                remedy="name runs that were trained on one store with one set of settings",
            )

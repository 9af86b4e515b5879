"""Which slides train and which test, by a configuration; without torch, so that a mistake is reported at once.

In: a configuration, whose store is opened. Out: folds of slide ids.
"""

from collections.abc import Sequence

from cache.store import GEOMETRY, Store
from magnet_core.console import notice
from magnet_core.errors import MagnetError
from magnet_core.levels import TARGETS, find_target
from magnet_core.registry import near_names
from train.data.folds import Fold, fewer_folds_notice, load_or_create_folds
from train.settings.fit import FitConfig


def choose_fold(config: FitConfig) -> Fold:
    """Return the fold of a configuration."""
    return find_fold(all_folds(config), config.fold, config)


def find_fold(folds: Sequence[Fold], index: int, config: FitConfig) -> Fold:
    """Return a fold by its number; an unknown number is an error."""
    if not 0 <= index < len(folds):
        raise MagnetError(
            "--fold",
            expected=f"0 to {len(folds) - 1} ({len(folds)} folds in {config.split.file})",
            found=str(index),
            remedy="choose one of them",
        )
    return folds[index]


def all_folds(config: FitConfig) -> list[Fold]:
    """Return the folds, drawn once over all slides of the store that have counts."""
    store = Store(config.data.store)
    if unfinished := [path for path in store.unfinished() if path.stem == GEOMETRY]:
        notice(
            f"not in any fold, as its extraction is unfinished: {', '.join(path.parent.name for path in unfinished)}"
        )
    by_patient = config.split.by == "patient"  # without names, each slide is its own patient
    patients = {row["slide_id"]: row["patient"] if by_patient else "" for row in store.samples() if row["counts"]}
    if said := fewer_folds_notice(patients, folds=config.split.folds):
        notice(said)
    return load_or_create_folds(config.split.file, patients, folds=config.split.folds, seed=config.split.seed)


def choose_folds(config: FitConfig, chosen: Sequence[int] | None) -> list[Fold]:
    """Return all folds, or those of the given numbers."""
    folds = all_folds(config)
    return folds if chosen is None else [find_fold(folds, index, config) for index in chosen]


def has_target(store: Store, slide_id: str, target_um: int) -> bool:
    """Tell whether a slide was extracted with a target."""
    levels = store.geometry(slide_id).header["levels"]
    return all(level in levels for level in find_target(target_um).levels)


def targets_of(
    config: FitConfig,
    folds: Sequence[Fold],
    asked: Sequence[int] | None,
    usual: Sequence[int],
    *,
    option: str = "--targets",
) -> list[int]:
    """Return the targets asked for, all of which the store must have, or else the usual targets that it has."""
    store = Store(config.data.store)
    slide_ids = {slide_id for fold in folds for slide_id in (*fold.train, *fold.test)}
    in_store = [target for target in TARGETS if all(has_target(store, slide_id, target) for slide_id in slide_ids)]
    targets = list(usual if asked is None else asked)
    available = [target for target in targets if target in in_store]
    if not available or (asked is not None and available != targets):
        raise MagnetError(
            option,
            expected=f"some of {', '.join(map(str, in_store)) or 'none'}, which {store.root} was made for",
            found=", ".join(map(str, targets)),
            remedy="choose among them, or extract with other --targets",
        )
    return available


def check_features(config: FitConfig, folds: Sequence[Fold]) -> None:
    """Refuse slides that lack features of the backbone; the error says how to make the features."""
    store, data = Store(config.data.store), config.data
    for slide_id in sorted({slide_id for fold in folds for slide_id in (*fold.train, *fold.test)}):
        store.features(slide_id, data.backbone, data.settings_digest or None)


def check_gene_names(
    config: FitConfig, folds: Sequence[Fold], genes: Sequence[str], *, option: str = "--genes"
) -> None:
    """Refuse genes that no slide of the folds measures, by name; whether a panel has them is another question."""
    if not genes:
        return
    store, names = Store(config.data.store), set()
    for slide_id in sorted({slide_id for fold in folds for slide_id in (*fold.train, *fold.test)}):
        names.update(store.geometry(slide_id).read("genes/name").tolist())
    if unknown := [gene for gene in genes if gene not in names]:
        near = near_names(unknown[0], names)
        raise MagnetError(
            option,
            expected="names of genes that a slide measures",
            found=", ".join(f"'{gene}'" for gene in unknown),
            remedy=near if near.startswith("did you mean") else "correct them: it takes names, not ids",
        )

"""Which slides train and which test, by a configuration; without torch, so that a mistake is reported at once.

In: a configuration, whose store is opened. Out: folds of slide ids.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from cache.index import patient_of
from cache.store import GEOMETRY, Store
from magnet_core.console import logger, notice
from magnet_core.errors import MagnetError
from magnet_core.levels import TARGETS, find_target
from magnet_core.panel import included_genes, shared_genes
from magnet_core.records import Genes
from magnet_core.registry import near_names
from train.data.folds import Fold, fewer_folds_notice, load_or_create_folds
from train.settings.fit import FitConfig

log = logger(__name__)


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
    if stale := store.stale_ids():
        log.warning("not in any fold, as their sample sheet no longer names them: %s", ", ".join(stale))
    by_patient = config.split.by == "patient"  # without names, each slide is its own patient
    rows = [row for row in store.current_samples() if row.get("counts")]
    patients = {row["slide_id"]: patient_of(row) if by_patient else "" for row in rows}
    refuse_same_image(store, rows, patients)
    if said := fewer_folds_notice(patients, folds=config.split.folds):
        notice(said)
    return load_or_create_folds(config.split.file, patients, folds=config.split.folds, seed=config.split.seed)


def refuse_same_image(store: Store, rows: Sequence[Mapping[str, Any]], patients: Mapping[str, str]) -> None:
    """Refuse slides of one image that could come to both sides of a fold: the same tissue under two names."""
    first_with: dict[str, str] = {}
    for row in rows:
        slide_id, image = row["slide_id"], store.fingerprint(row)
        other = slide_id if image is None else first_with.setdefault(image, slide_id)
        if (patients[other] or other) != (patients[slide_id] or slide_id):
            raise MagnetError(
                f"{store.root}: slides '{other}' and '{slide_id}'",
                expected="an image of its own for each, as a fold may have them on both sides",
                found="the same image under both names",
                remedy=f"delete the folder of the name no longer used, then run 'cache repair {store.root} --yes'",
            )


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
    slide_ids = slides_of(folds)
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
    """Refuse slides that lack what is learnt from: features of the backbone, and pixels where its encoder is trained.

    The error says how to make them.
    """
    store, data = Store(config.data.store), config.data
    for slide_id in slides_of(folds):
        store.features(slide_id, data.backbone, data.settings_digest or None)
    if config.encoder.mode != "frozen" and (lacking := without_pixels(store, folds)):
        raise no_pixels(store.root / lacking[0])


def without_pixels(store: Store, folds: Sequence[Fold]) -> list[str]:
    """Return the slides of folds that were extracted without the pixels of their fine rows."""
    return [slide_id for slide_id in slides_of(folds) if not store.geometry(slide_id).header.get("pixels", True)]


def no_pixels(slide: Path) -> MagnetError:
    """Return the error for what reads pixels, on a slide's folder in a store that has none of it."""
    return MagnetError(
        slide,
        expected="the pixels of its bins or spots, to train or run an encoder on",
        found="a slide extracted with --no-pixels",
        remedy="give the same 'extract run' again without --no-pixels, which adds them, or learn from features: "
        "--bins frozen, no --finetune",
    )


def slides_of(folds: Sequence[Fold]) -> list[str]:
    """Return the ids of all slides of some folds."""
    return sorted({slide_id for fold in folds for slide_id in (*fold.train, *fold.test)})


def check_included(config: FitConfig, folds: Sequence[Fold]) -> None:
    """Refuse genes to include that the panel of a fold could not have: not measured on all its slides, or too many."""
    if not config.data.include:
        return
    store, data = Store(config.data.store), config.data
    tables = {slide_id: store.geometry(slide_id) for slide_id in slides_of(folds)}
    genes = {slide_id: Genes(table.read("genes/id"), table.read("genes/name")) for slide_id, table in tables.items()}
    for fold in folds:
        of_fold = {slide_id: genes[slide_id] for slide_id in fold.train}
        included_genes(shared_genes(of_fold), of_fold, size=data.panel, include=data.include)


def check_gene_names(
    config: FitConfig, folds: Sequence[Fold], genes: Sequence[str], *, option: str = "--genes"
) -> None:
    """Refuse genes that no slide of the folds measures, by name; whether a panel has them is another question."""
    if not genes:
        return
    store, names = Store(config.data.store), set()
    for slide_id in slides_of(folds):
        names.update(store.geometry(slide_id).read("genes/name").tolist())
    if unknown := [gene for gene in genes if gene not in names]:
        near = near_names(unknown[0], names)
        raise MagnetError(
            option,
            expected="names of genes that a slide measures",
            found=", ".join(f"'{gene}'" for gene in unknown),
            remedy=near if near.startswith("did you mean") else "correct them: it takes names, not ids",
        )

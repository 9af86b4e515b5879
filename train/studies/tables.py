"""From what is asked to what a table consists of."""

from collections.abc import Sequence

from cache.store import Store, backbone_slug
from magnet_core.errors import MagnetError
from magnet_core.levels import TARGETS
from train.data.fold_sides import all_folds, find_fold
from train.data.folds import Fold
from train.data.slide import has_target
from train.studies.plans import ALL_BLOCKS, HIGH_RESOLUTION_ONLY, Plan, Planner
from train.studies.request import Study, StudyRequest
from train.studies.settings import StudyConfig
from train.systems.table import MAGNET, SYSTEMS, plain_systems

TABLE_TITLES = {
    Study.BASELINES: "Comparison of systems, as in the paper's Table 1",
    Study.BLOCKS: "What each block of MagNet is worth, as in the paper's Table 2",
    Study.LEVELS: "The high resolution alone, as in the paper's Table 3",
    Study.BACKBONES: "Backbones for MagNet, as in the paper's Table 4",
}
USUAL_TARGETS = {Study.BASELINES: (8, 16, 55), Study.BLOCKS: (16,), Study.LEVELS: (8,), Study.BACKBONES: (8, 16, 55)}
USUAL_BACKBONES = ("resnet50", "uni")


def plan_paper_table(
    study: Study,
    asked: StudyRequest,
    config: StudyConfig,
    *,
    targets: Sequence[int] | None,
    systems: Sequence[str] | None,
    backbones: Sequence[str] | None,
    name: str,
) -> Plan:
    """Plan one of the paper's tables, for the folder `name`; None stands for the usual ones."""
    folds = choose_folds(config, asked.folds)
    planner = Planner(config, folds)
    wanted = targets_of(config, folds, targets, USUAL_TARGETS[study])
    labels = {"name": name, "title": TABLE_TITLES[study]}
    if study is Study.BASELINES:
        return planner.baselines(wanted, systems or tuple(SYSTEMS), **labels)
    if study is Study.BACKBONES:
        return planner.backbones(wanted, backbones or USUAL_BACKBONES, **labels)
    variants = tuple(ALL_BLOCKS) if study is Study.BLOCKS else HIGH_RESOLUTION_ONLY
    return planner.blocks(wanted, variants, **labels)


def plan_cross_validation(
    asked: StudyRequest, config: StudyConfig, *, target: int | None, name: str | None, part: str
) -> Plan:
    """Plan MagNet on every fold, beside the plain baselines; `part` ends the name of the folder."""
    data = config.fit.data
    target = target or data.target
    folds = choose_folds(config, asked.folds)
    targets_of(config, folds, [target], (), option="--target")
    name = name or f"cv-{backbone_slug(data.backbone)}-{target}um{part}"
    title = f"Cross-validation, {target} µm, {data.backbone}"
    return Planner(config, folds).baselines([target], (MAGNET, *plain_systems()), name=name, title=title)


def choose_folds(config: StudyConfig, chosen: Sequence[int] | None) -> list[Fold]:
    """Return all folds, or those that are asked for by number."""
    folds = all_folds(Store(config.fit.data.store), config.fit)
    return folds if chosen is None else [find_fold(folds, index, config.fit) for index in chosen]


def targets_of(
    config: StudyConfig,
    folds: Sequence[Fold],
    asked: Sequence[int] | None,
    usual: Sequence[int],
    *,
    option: str = "--targets",
) -> list[int]:
    """Return the targets asked for, or the usual ones that the store was made for; any that it lacks is an error."""
    store = Store(config.fit.data.store)
    slide_ids = {slide_id for fold in folds for slide_id in (*fold.train, *fold.test)}
    there = [target for target in TARGETS if all(has_target(store, slide_id, target) for slide_id in slide_ids)]
    wanted = list(usual if asked is None else asked)
    found = [target for target in wanted if target in there]
    if not found or (asked is not None and found != wanted):
        raise MagnetError(
            option,
            expected=f"some of {', '.join(map(str, there)) or 'none'}, which {store.root} was made for",
            found=", ".join(map(str, wanted)),
            remedy="choose among them, or extract with other --targets",
        )
    return found

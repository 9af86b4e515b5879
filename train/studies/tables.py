"""Plans the cells of a table from what a command asks."""

from collections.abc import Sequence

from cache.store import backbone_slug
from train.data.folds import Fold
from train.studies.plans import ALL_BLOCKS, HIGH_RESOLUTION_ONLY, Plan, Planner
from train.studies.request import USUAL_BACKBONES, Study
from train.studies.settings import StudyConfig
from train.systems.table import MAGNET, SYSTEMS, plain_systems

TABLE_TITLES = {
    Study.BASELINES: "Comparison of systems, as in the paper's Table 1",
    Study.BLOCKS: "What each block of MagNet is worth, as in the paper's Table 2",
    Study.LEVELS: "The high resolution alone, as in the paper's Table 3",
    Study.BACKBONES: "Backbones for MagNet, as in the paper's Table 4",
}


def plan_paper_table(
    study: Study,
    config: StudyConfig,
    folds: Sequence[Fold],
    *,
    targets: Sequence[int],
    systems: Sequence[str] | None,
    backbones: Sequence[str] | None,
    name: str,
) -> Plan:
    """Plan one of the paper's tables, for the folder `name`; None means all systems, or the usual backbones."""
    planner = Planner(config, folds)
    labels = {"name": name, "title": TABLE_TITLES[study]}
    if study is Study.BASELINES:
        return planner.baselines(targets, systems or tuple(SYSTEMS), **labels)
    if study is Study.BACKBONES:
        return planner.backbones(targets, backbones or USUAL_BACKBONES, **labels)
    variants = tuple(ALL_BLOCKS) if study is Study.BLOCKS else HIGH_RESOLUTION_ONLY
    return planner.blocks(targets, variants, **labels)


def plan_cross_validation(
    config: StudyConfig, folds: Sequence[Fold], *, target: int, name: str | None, part: str
) -> Plan:
    """Plan MagNet on folds, beside the plain baselines; `part` ends the name of the folder."""
    backbone = config.fit.data.backbone
    name = name or f"cv-{backbone_slug(backbone)}-{target}um{part}"
    title = f"Cross-validation, {target} µm, {backbone}"
    return Planner(config, folds).baselines([target], (MAGNET, *plain_systems()), name=name, title=title)

"""Stage two on one page: from a store to a trained run and its table.

The panel, the baselines and the model see training slides only; test slides are opened for prediction, and their labels
are read when all predictions are made.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from magnet_core.files import sync_below, write_json
from magnet_core.records import Genes
from magnet_core.seeding import seed_everything
from train.data.fold_sides import FoldSides, open_fold
from train.data.folds import Fold
from train.data.training_side import hold_out
from train.evaluation.scores import SystemScore, genes_table, metrics_row, score, write_genes
from train.learning.checkpoint import forget
from train.learning.run_folder import GENES, SUMMARY, check_folder, held, prepare
from train.settings.fit import FitConfig
from train.systems.base import System
from train.systems.magnet import MagNetSystem
from train.systems.plain.gene_mean import GeneMean
from train.systems.plain.ridge import ColourRidge, FeatureRidge


@dataclass(frozen=True)
class FitResult:
    """Where a run lies, and the four metrics of each system."""

    folder: Path
    fold: Fold
    systems: dict[str, dict[str, float]]


def fit(config: FitConfig) -> FitResult:
    """Train one fold, going on where it was stopped, and compare MagNet with the plain baselines on its test slides."""
    folder = check_folder(config)
    seed_everything(config.seed)
    sides = open_fold(config)
    with held(folder):
        return fit_and_test(config, folder, sides)


def fit_and_test(config: FitConfig, folder: Path, sides: FoldSides) -> FitResult:
    """Fit every system on the training side, predict the test slides, then read their labels and compare."""
    systems: dict[str, System] = {"magnet": MagNetSystem(config, folder)}
    if config.baselines:
        systems |= {"gene_mean": GeneMean(), "colour_ridge": ColourRidge(), "feature_ridge": FeatureRidge()}
    prepare(folder)
    predictions = {}
    for name, system in systems.items():
        system.fit(hold_out(sides.training, config))
        predictions[name] = {slide.slide_id: system.predict(slide) for slide in sides.test_slides}

    truth = sides.truth()
    scores = {name: score(by_slide, truth) for name, by_slide in predictions.items()}
    result = write_results(folder, sides.fold, sides.training.panel, scores)
    forget(folder)
    return result


def write_results(folder: Path, fold: Fold, panel: Genes, scores: Mapping[str, SystemScore]) -> FitResult:
    """Write the per-gene table and the summary; the summary comes last and marks the run as finished."""
    systems = {name: metrics_row(result.mean) for name, result in scores.items()}
    slides = {
        name: {slide_id: metrics_row(metrics) for slide_id, metrics in result.slides.items()}
        for name, result in scores.items()
    }
    write_genes(folder / GENES, genes_table(scores, panel))
    split = {"index": fold.index, "train": list(fold.train), "test": list(fold.test)}
    sync_below(folder)
    write_json(folder / SUMMARY, {"systems": systems, "slides": slides, "fold": split})
    return FitResult(folder, fold, systems)

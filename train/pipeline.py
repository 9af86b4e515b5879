"""Stage two on one page: from a store to a trained run and its table.

The panel, the baselines and the model see training slides only; test slides are opened for prediction, and their labels
are read when all predictions are made.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from cache.store import GEOMETRY, Store
from magnet_core.device import pick_device
from magnet_core.errors import MagnetError
from magnet_core.expression import choose_panel
from magnet_core.files import write_json
from magnet_core.levels import find_target
from magnet_core.model import MagNet
from magnet_core.records import Genes
from magnet_core.seeding import seed_everything
from train.baselines import Baseline, ColourRidge, FeatureRidge, GeneMean
from train.checkpoint import DESCRIPTION, TrainedRun, build_predictor, save_run
from train.config import DataConfig, FitConfig
from train.dataset import Slide, open_slide_data
from train.evaluate import SystemScore, genes_table, metrics_row, score, write_genes
from train.labels import SlideLabels, fine_labels
from train.predict import predict_slide
from train.raw_counts import RawCounts
from train.residency import place_features
from train.splits import Fold, fewer_folds_notice, load_or_create_folds
from train.state import Progress, forget
from train.trainer import train
from train.validation import split_validation, validator

SUMMARY, GENES = "summary.json", "genes.parquet"


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
    store = Store(config.data.store)
    fold = choose_fold(store, config)
    slides = open_slides(store, (*fold.train, *fold.test), config.data)
    train_slides, test_slides = slides[: len(fold.train)], slides[len(fold.train) :]
    panel = choose_panel(
        {slide.slide_id: slide.mean_counts() for slide in train_slides},
        {slide.slide_id: slide.genes for slide in train_slides},
        size=config.data.panel,
    )
    labels = {slide.slide_id: slide.labels(panel, config.data.normalise) for slide in train_slides}
    learnt, held_out = split_validation(train_slides, config)

    predictor = build_predictor(config, train_slides[0], num_genes=len(panel)).to(pick_device(config.device))
    set_mean_output(predictor.model, learnt, labels)
    tqdm.write(place_features(predictor, train_slides, config.compute.resident))
    prepare(folder)
    raw_counts = None if config.loss.likelihood == "mse" else RawCounts.of(learnt, panel, config.data.normalise)
    validate = validator(held_out, labels)
    done = train(predictor, learnt, labels, config=config, folder=folder, validate=validate, raw_counts=raw_counts)
    save_run(folder, TrainedRun(config, panel, predictor), extra=describe_training(fold, held_out, done))

    predictions = {"magnet": {slide.slide_id: predict_slide(predictor, slide) for slide in test_slides}}
    if config.baselines:
        of_fine = {slide.slide_id: fine_labels(slide, labels[slide.slide_id]) for slide in train_slides}
        predictions |= predict_baselines(train_slides, of_fine, test_slides)
    truth = {slide.slide_id: fine_labels(slide, slide.labels(panel, config.data.normalise)) for slide in test_slides}
    scores = {name: score(by_slide, truth) for name, by_slide in predictions.items()}
    result = write_results(folder, fold, panel, scores)
    forget(folder)
    return result


def check_folder(config: FitConfig) -> Path:
    """Return the run's folder; a finished run in it is refused unless it may be overwritten."""
    folder = config.runs / config.run_name
    if (folder / SUMMARY).exists() and not config.overwrite:
        raise MagnetError(
            folder, expected="a new run", found="a finished one", remedy="give another --name, or --overwrite"
        )
    return folder


def prepare(folder: Path) -> None:
    """Make the run's folder, and remove a finished run from it; what an unfinished one left stays, to go on from."""
    folder.mkdir(parents=True, exist_ok=True)
    if (folder / SUMMARY).exists():
        forget(folder)
        for name in (SUMMARY, GENES, DESCRIPTION):
            (folder / name).unlink(missing_ok=True)


def describe_training(fold: Fold, held_out: Sequence[Slide], done: Progress) -> dict[str, Any]:
    """Say how a training went, for the run's description."""
    return {
        "fold": fold.index,
        "validation_slides": [slide.slide_id for slide in held_out],
        "validation_scores": done.scores,
        "kept_epoch": done.kept_epoch,
        "losses": done.history,
    }


def choose_fold(store: Store, config: FitConfig) -> Fold:
    """Return the fold of the run, from folds drawn once over all slides of the store that have counts."""
    if unfinished := [path for path in store.unfinished() if path.stem == GEOMETRY]:
        tqdm.write(
            f"not in any fold, as its extraction is unfinished: {', '.join(path.parent.name for path in unfinished)}"
        )
    patients = {row["slide_id"]: row["patient"] for row in store.samples() if row["counts"]}
    if notice := fewer_folds_notice(patients, folds=config.split.folds):
        tqdm.write(notice)
    folds = load_or_create_folds(config.split.file, patients, folds=config.split.folds, seed=config.split.seed)
    if not 0 <= config.fold < len(folds):
        raise MagnetError(
            "--fold",
            expected=f"0 to {len(folds) - 1} ({len(folds)} folds in {config.split.file})",
            found=str(config.fold),
            remedy="choose one of them",
        )
    return folds[config.fold]


def open_slides(store: Store, slide_ids: Sequence[str], config: DataConfig) -> list[Slide]:
    """Open slides for the run's target; their features must come from one set of settings."""
    target = find_target(config.target)
    slides = [open_slide_data(store, slide_id, target, config) for slide_id in slide_ids]
    by_settings = {slide.features_header["settings_digest"]: slide.slide_id for slide in slides}
    if len(by_settings) > 1:
        raise MagnetError(
            f"{config.store}: features of {config.backbone}",
            expected="the same extraction settings for all slides",
            found=", ".join(f"{digest} ({slide_id})" for digest, slide_id in by_settings.items()),
            remedy="extract all slides with one set of settings, or choose by --set data.settings_digest=...",
        )
    return slides


def predict_baselines(
    train_slides: Sequence[Slide], labels: Mapping[str, np.ndarray], test_slides: Sequence[Slide]
) -> dict[str, dict[str, np.ndarray]]:
    """Fit each plain baseline on the training slides and predict the test slides."""
    baselines: dict[str, Baseline] = {
        "gene_mean": GeneMean(),
        "colour_ridge": ColourRidge(),
        "feature_ridge": FeatureRidge(),
    }
    predictions = {}
    for name, baseline in baselines.items():
        baseline.fit(train_slides, labels)
        predictions[name] = {slide.slide_id: baseline.predict(slide) for slide in test_slides}
    return predictions


def set_mean_output(model: MagNet, slides: Sequence[Slide], labels: SlideLabels) -> None:
    """Start the heads at the mean expression of the training slides."""
    device = next(model.parameters()).device

    def mean(level: str) -> torch.Tensor | None:
        known = [part for slide in slides if (part := labels[slide.slide_id][level]) is not None]
        return torch.from_numpy(np.concatenate(known).mean(axis=0)).to(device) if known else None

    target = slides[0].target
    fine = mean(target.fine)
    assert fine is not None
    contexts = {name: level_mean for name in target.contexts if (level_mean := mean(name)) is not None}
    model.set_output_bias(fine, contexts)


def write_results(folder: Path, fold: Fold, panel: Genes, scores: Mapping[str, SystemScore]) -> FitResult:
    """Write the per-gene table and the summary; the summary comes last and marks the run as finished."""
    systems = {name: metrics_row(result.mean) for name, result in scores.items()}
    slides = {
        name: {slide_id: metrics_row(metrics) for slide_id, metrics in result.slides.items()}
        for name, result in scores.items()
    }
    write_genes(folder / GENES, genes_table(scores, panel))
    split = {"index": fold.index, "train": list(fold.train), "test": list(fold.test)}
    write_json(folder / SUMMARY, {"systems": systems, "slides": slides, "fold": split})
    return FitResult(folder, fold, systems)

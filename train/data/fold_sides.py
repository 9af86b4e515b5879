"""The two sides of one fold: what a system may learn from, and the slides it is tested on.

In: a store and a configuration. Out: a `FoldSides`. The panel is chosen, and labels are read, on training slides only;
the labels of test slides are read by `truth`, when all predictions are made.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from tqdm import tqdm

from cache.store import GEOMETRY, Store
from magnet_core.errors import MagnetError
from magnet_core.levels import find_target
from magnet_core.panel import choose_panel, choose_variable_panel
from magnet_core.records import Genes
from magnet_core.settings.normalise import NormaliseConfig
from train.data.folds import Fold, fewer_folds_notice, load_or_create_folds
from train.data.labels import SlideLabels, fine_labels
from train.data.slide import Slide, open_slide_data
from train.settings.fit import DataConfig, FitConfig

# N fine rows of a slide, P panel genes

OpenSlides = Callable[[Sequence[str], DataConfig], list[Slide]]


@dataclass(frozen=True)
class TrainingSide:
    """All that a system may learn from.

    slides     the training slides of a fold
    labels     normalised expression of all their levels, by slide id
    panel      the genes that are predicted, chosen on these slides
    normalise  how raw counts became labels
    """

    slides: Sequence[Slide]
    labels: SlideLabels
    panel: Genes
    normalise: NormaliseConfig

    def fine(self, slide: Slide) -> np.ndarray:
        """Labels (N, P) of a slide's fine rows."""
        return fine_labels(slide, self.labels[slide.slide_id])

    def all_fine(self) -> np.ndarray:
        """Labels (n, P) of the fine rows of all slides, in the order of `slides`."""
        return np.concatenate([self.fine(slide) for slide in self.slides])

    def patients(self) -> np.ndarray:
        """Patient of the fine rows of all slides (n,), in their order; a slide is its own where none is named."""
        return np.concatenate([[slide.patient or slide.slide_id] * len(slide.fine) for slide in self.slides])

    def fine_by_slide(self) -> dict[str, np.ndarray]:
        """Labels (N, P) of the fine rows of each slide, by slide id."""
        return {slide.slide_id: self.fine(slide) for slide in self.slides}

    def mean_fine(self) -> np.ndarray:
        """Mean label of each gene over the fine rows of all slides, (P,)."""
        return self.all_fine().mean(axis=0)


@dataclass(frozen=True)
class FoldSides:
    """One fold: its training side, and its test slides without their labels."""

    fold: Fold
    training: TrainingSide
    test_slides: Sequence[Slide]

    def truth(self) -> dict[str, np.ndarray]:
        """Labels (N, P) of the test slides by slide id; to be read once all predictions are made."""
        panel, normalise = self.training.panel, self.training.normalise
        return {slide.slide_id: fine_labels(slide, slide.labels(panel, normalise)) for slide in self.test_slides}


def open_fold(config: FitConfig, *, fold: Fold | None = None, open_slides: OpenSlides | None = None) -> FoldSides:
    """Open a configuration's fold, or another; `open_slides` may hand out slides that are open already."""
    fold = fold or choose_fold(Store(config.data.store), config)
    slides = (open_slides or open_from_store)((*fold.train, *fold.test), config.data)
    train_slides, test_slides = slides[: len(fold.train)], slides[len(fold.train) :]
    panel = panel_of(train_slides, config.data)
    labels = {slide.slide_id: slide.labels(panel, config.data.normalise) for slide in train_slides}
    return FoldSides(fold, TrainingSide(train_slides, labels, panel, config.data.normalise), test_slides)


def panel_of(slides: Sequence[Slide], config: DataConfig) -> Genes:
    """Choose the panel on training slides."""
    genes = {slide.slide_id: slide.genes for slide in slides}
    if config.panel_by == "variance":
        statistics = {slide.slide_id: slide.log_statistics() for slide in slides}
        return choose_variable_panel(statistics, genes, size=config.panel, include=config.include)
    means = {slide.slide_id: slide.mean_counts() for slide in slides}
    return choose_panel(means, genes, size=config.panel, include=config.include)


def choose_fold(store: Store, config: FitConfig) -> Fold:
    """Return the fold of a configuration."""
    return find_fold(all_folds(store, config), config.fold, config)


def find_fold(folds: Sequence[Fold], index: int, config: FitConfig) -> Fold:
    """Return a fold by its number; one that is not there is an error."""
    if not 0 <= index < len(folds):
        raise MagnetError(
            "--fold",
            expected=f"0 to {len(folds) - 1} ({len(folds)} folds in {config.split.file})",
            found=str(index),
            remedy="choose one of them",
        )
    return folds[index]


def all_folds(store: Store, config: FitConfig) -> list[Fold]:
    """Return the folds, drawn once over all slides of the store that have counts."""
    if unfinished := [path for path in store.unfinished() if path.stem == GEOMETRY]:
        tqdm.write(
            f"not in any fold, as its extraction is unfinished: {', '.join(path.parent.name for path in unfinished)}"
        )
    by_patient = config.split.by == "patient"  # without names, each slide is a patient of its own
    patients = {row["slide_id"]: row["patient"] if by_patient else "" for row in store.samples() if row["counts"]}
    if notice := fewer_folds_notice(patients, folds=config.split.folds):
        tqdm.write(notice)
    return load_or_create_folds(config.split.file, patients, folds=config.split.folds, seed=config.split.seed)


def open_from_store(slide_ids: Sequence[str], config: DataConfig) -> list[Slide]:
    """Open slides for a run's target."""
    store, target = Store(config.store), find_target(config.target)
    return check_same_settings([open_slide_data(store, slide_id, target, config) for slide_id in slide_ids], config)


def check_same_settings(slides: list[Slide], config: DataConfig) -> list[Slide]:
    """Return slides whose features come from one set of settings; others are an error."""
    by_settings = {slide.features_header["settings_digest"]: slide.slide_id for slide in slides}
    if len(by_settings) > 1:
        raise MagnetError(
            f"{config.store}: features of {config.backbone}",
            expected="the same extraction settings for all slides",
            found=", ".join(f"{digest} ({slide_id})" for digest, slide_id in by_settings.items()),
            remedy="extract all slides with one set of settings, or choose by --set data.settings_digest=...",
        )
    return slides

"""The two sides of one fold: what a system may learn from, and the slides it is tested on.

In: a store and a configuration. Out: a `FoldSides`. The panel is chosen, and labels are read, on training slides only;
the labels of test slides are read by `truth`, when all predictions are made.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from cache.store import Store
from magnet_core.errors import MagnetError
from magnet_core.levels import find_target
from magnet_core.panel import choose_panel, choose_variable_panel
from magnet_core.records import Genes
from train.data.fold_choice import choose_fold
from train.data.folds import Fold
from train.data.labels import fine_labels
from train.data.slide import Slide, open_slide_data
from train.data.training_side import TrainingSide
from train.settings.fit import DataConfig, FitConfig

# N fine rows of a slide, P panel genes

OpenSlides = Callable[[Sequence[str], DataConfig], list[Slide]]


@dataclass(frozen=True)
class FoldSides:
    """One fold: its training side, and its test slides without their labels."""

    fold: Fold
    training: TrainingSide
    test_slides: Sequence[Slide]

    def truth(self) -> dict[str, np.ndarray]:
        """Read the labels (N, P) of the test slides by slide id, after all predictions are made."""
        panel, normalise = self.training.panel, self.training.normalise
        return {slide.slide_id: fine_labels(slide, slide.labels(panel, normalise)) for slide in self.test_slides}


def open_fold(config: FitConfig, *, fold: Fold | None = None, open_slides: OpenSlides | None = None) -> FoldSides:
    """Open a configuration's fold, or the given one; `open_slides` may return slides that are already open."""
    fold = fold or choose_fold(config)
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


def open_from_store(slide_ids: Sequence[str], config: DataConfig) -> list[Slide]:
    """Open slides for a run's target."""
    store, target = Store(config.store), find_target(config.target)
    return check_same_settings([open_slide_data(store, slide_id, target, config) for slide_id in slide_ids], config)


def check_same_settings(slides: list[Slide], config: DataConfig) -> list[Slide]:
    """Return the slides if all their features come from one set of settings; otherwise raise an error."""
    by_settings = {slide.features_header["settings_digest"]: slide.slide_id for slide in slides}
    if len(by_settings) > 1:
        raise MagnetError(
            f"{config.store}: features of {config.backbone}",
            expected="the same extraction settings for all slides",
            found=", ".join(f"{digest} ({slide_id})" for digest, slide_id in by_settings.items()),
            remedy="extract all slides with one set of settings, or choose by --set data.settings_digest=...",
        )
    return slides

"""The training side of a fold: its slides and labels, and which of them are held out to choose an epoch.

In: training slides, their labels, a panel. Out: a `TrainingSide`. Nothing of a test slide is in it.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from magnet_core.records import Genes
from magnet_core.seeding import named_rng
from magnet_core.settings.normalise import NormaliseConfig
from train.data.labels import SlideLabels, fine_labels
from train.data.raw_counts import RawCounts
from train.data.slide import Slide
from train.settings.fit import FitConfig

# N fine rows of a slide, n rows of all training slides, P panel genes


@dataclass(frozen=True)
class TrainingSide:
    """All that a system may learn from.

    slides     the training slides of a fold
    labels     normalised expression of all their levels, by slide id
    panel      the genes that are predicted, chosen on these slides
    normalise  how raw counts became labels
    held_out   those of the slides that choose the epoch whose weights are kept; systems without epochs learn from all
    """

    slides: Sequence[Slide]
    labels: SlideLabels
    panel: Genes
    normalise: NormaliseConfig
    held_out: Sequence[Slide] = ()

    @cached_property
    def learnt(self) -> "TrainingSide":
        """The side without the slides that are held out."""
        left_out = {slide.slide_id for slide in self.held_out}
        return replace(self, slides=[slide for slide in self.slides if slide.slide_id not in left_out], held_out=())

    @cached_property
    def raw_counts(self) -> RawCounts:
        """Raw counts of the slides, for a likelihood in the place of the squared error."""
        return RawCounts.of(self.slides, self.panel, self.normalise)

    def fine(self, slide: Slide) -> np.ndarray:
        """Labels (N, P) of a slide's fine rows."""
        return fine_labels(slide, self.labels[slide.slide_id])

    def all_fine(self) -> np.ndarray:
        """Labels (n, P) of the fine rows of all slides, in the order of `slides`."""
        return np.concatenate([self.fine(slide) for slide in self.slides])

    def patients(self) -> np.ndarray:
        """Return the patient of each fine row of all slides (n,); a slide without a patient is its own."""
        return np.concatenate([[slide.patient or slide.slide_id] * len(slide.fine) for slide in self.slides])

    def fine_by_slide(self) -> dict[str, np.ndarray]:
        """Labels (N, P) of the fine rows of each slide, by slide id."""
        return {slide.slide_id: self.fine(slide) for slide in self.slides}

    def mean_fine(self) -> np.ndarray:
        """Mean label of each gene over the fine rows of all slides, (P,)."""
        values: np.ndarray = self.all_fine().mean(axis=0)
        return values


def hold_out(side: TrainingSide, config: FitConfig) -> TrainingSide:
    """Return the same side with the slides of `validation.share` of its patients held out; it may hold out none."""
    patients = held_out_patients([slide.patient for slide in side.slides], config)
    return replace(side, held_out=[slide for slide in side.slides if slide.patient in patients])


def held_out_patients(patients: Sequence[str], config: FitConfig) -> set[str]:
    """Draw the patients that are held out; their number is a share of all patients, rounded down."""
    names = sorted(set(patients))
    named_rng(config.seed, "validation").shuffle(names)
    return set(names[: math.floor(config.validation.share * len(names))])

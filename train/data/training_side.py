"""The training side of a fold: its slides and labels, and what of them is held out to choose an epoch.

In: training slides, their labels, a panel. Out: a `TrainingSide`. Nothing of a test slide is in it.
"""

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
from train.data.slide_part import learnt_part
from train.data.tissue_blocks import TissueBlocks, draw_blocks
from train.settings.fit import FitConfig

# N fine rows of a slide, n rows of all training slides, P panel genes


@dataclass(frozen=True)
class HeldOut:
    """What of a slide chooses an epoch: all of it, or blocks of its tissue."""

    slide: Slide
    blocks: TissueBlocks | None = None

    def __str__(self) -> str:
        return self.slide.slide_id if self.blocks is None else f"blocks of {self.slide.slide_id}"

    @property
    def rows(self) -> np.ndarray:
        """The fine rows that are judged."""
        points_um = self.slide.fine.centres_um
        return np.arange(len(points_um)) if self.blocks is None else np.flatnonzero(self.blocks.judged(points_um))


@dataclass(frozen=True)
class TrainingSide:
    """All that a system may learn from.

    slides     the training slides of a fold
    labels     normalised expression of all their levels, by slide id
    panel      the genes that are predicted, chosen on these slides
    normalise  how raw counts became labels
    held_out   what of the slides chooses the epoch whose weights are kept; systems without epochs learn from all
    why_none   why nothing is held out, where nothing is
    """

    slides: Sequence[Slide]
    labels: SlideLabels
    panel: Genes
    normalise: NormaliseConfig
    held_out: Sequence[HeldOut] = ()
    why_none: str = ""

    @cached_property
    def learnt(self) -> "TrainingSide":
        """The side without what is held out: whole slides, or the blocks of a slide with their margins."""
        held_out = {each.slide.slide_id: each.blocks for each in self.held_out}
        slides, labels = [], dict(self.labels)
        for slide in self.slides:
            if (blocks := held_out.get(slide.slide_id)) is not None:
                part, labels[slide.slide_id] = learnt_part(slide, labels[slide.slide_id], blocks)
                slides.append(part)
            elif slide.slide_id not in held_out:
                slides.append(slide)
        return replace(self, slides=slides, labels=labels, held_out=())

    @property
    def num_patients(self) -> int:
        """How many patients the slides are of."""
        return len({slide.patient for slide in self.slides})

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
    """Return the same side with a share of it held out, see `ValidationConfig`: patients, or blocks of a single one's.

    Where nothing is held out, it says why.
    """
    validation, num_patients = config.validation, side.num_patients
    patients = held_out_patients([slide.patient for slide in side.slides], config)
    if patients:
        return replace(side, held_out=[HeldOut(slide) for slide in side.slides if slide.patient in patients])
    if not validation.share:
        return replace(side, held_out=[], why_none="validation.share=0")
    if not validation.holds_out_few(num_patients):
        of_patients = f"{num_patients} patient{'s' * (num_patients != 1)}"
        why = f"a share of {validation.share:g} of {of_patients} is none, and validation.few=none"
        return replace(side, held_out=[], why_none=why)
    held_out = [HeldOut(slide, blocks) for slide in side.slides if (blocks := _blocks_of(slide, config)) is not None]
    why = "" if held_out else "one patient, and no slide has room for a block of tissue with its margin"
    return replace(side, held_out=held_out, why_none=why)


def held_out_patients(patients: Sequence[str], config: FitConfig) -> set[str]:
    """Draw the patients that are held out, as many as the settings say."""
    names = sorted(set(patients))
    named_rng(config.seed, "validation").shuffle(names)
    return set(names[: config.validation.num_patients(len(names))])


def _blocks_of(slide: Slide, config: FitConfig) -> TissueBlocks | None:
    """Blocks of a slide, with a margin as wide as a fine patch and the widest patch of the target side by side."""
    margin_um = slide.fine.patch_um + max(level.patch_um for level in (slide.fine, *slide.contexts.values()))
    rng = named_rng(config.seed, "validation", slide.slide_id)
    return draw_blocks(slide.fine.centres_um, config.validation.share, margin_um=margin_um, rng=rng)

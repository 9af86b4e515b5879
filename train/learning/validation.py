"""Slides that choose the epoch whose weights are kept: whole patients of the training side, never test slides."""

import math
from collections.abc import Sequence

from magnet_core.metrics import combine, evaluate
from magnet_core.seeding import named_rng
from train.data.labels import SlideLabels, fine_labels
from train.data.slide import Slide
from train.learning.loop import Validate
from train.model.predictor import Predictor
from train.model.whole_slide import predict_slide
from train.settings.fit import FitConfig


def split_validation(slides: Sequence[Slide], config: FitConfig) -> tuple[list[Slide], list[Slide]]:
    """Split training slides into those learnt from and those held out, by patient; the latter may be none."""
    patients = sorted({slide.patient for slide in slides})
    named_rng(config.seed, "validation").shuffle(patients)
    held_out = set(patients[: math.floor(config.validation.share * len(patients))])
    return (
        [slide for slide in slides if slide.patient not in held_out],
        [slide for slide in slides if slide.patient in held_out],
    )


def validator(slides: Sequence[Slide], labels: SlideLabels) -> Validate | None:
    """Score a predictor by its PCC per gene on whole slides, mean over them; None without slides."""
    if not slides:
        return None

    def validate(predictor: Predictor) -> float:
        metrics = [
            evaluate(predict_slide(predictor, slide), fine_labels(slide, labels[slide.slide_id])) for slide in slides
        ]
        return combine(metrics).pcc_gene

    return validate

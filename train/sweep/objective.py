"""One trial: MagNet trained on part of the training patients, judged on the rest of them. Test slides are never asked.

In: a configuration. Out: its PCC per gene on the validation slides, of the epoch that a fit of these settings would
keep: the best one where a fit has validation slides of its own, else the last. Slides are opened once a process for
each set of data settings.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from math import isfinite
from pathlib import Path

from tqdm import tqdm

from magnet_core.device import pick_device
from magnet_core.errors import MagnetError
from magnet_core.seeding import seed_everything
from train.data.fold_sides import TrainingSide, open_fold
from train.data.raw_counts import RawCounts
from train.data.slide import Slide
from train.learning.loop import train
from train.learning.validation import split_validation, validator
from train.model.build import build_predictor
from train.model.placement import place_features
from train.model.predictor import Predictor
from train.settings.fit import DataConfig, FitConfig
from train.systems.magnet import set_mean_output

Report = Callable[[int, float], None]  # an epoch, from 1, and its score; may raise to stop the trial


@dataclass(frozen=True)
class Outcome:
    """What a trial is judged by: a score, and the epoch (from 1) it is of."""

    score: float
    epoch: int


@dataclass(frozen=True)
class Bench:
    """The training side of the fold: what is learnt from, and what trials are judged on.

    keeps_best  whether a fit has validation slides to choose its epoch by
    """

    training: TrainingSide
    learnt: Sequence[Slide]
    held_out: Sequence[Slide]
    keeps_best: bool

    @cached_property
    def raw_counts(self) -> RawCounts:
        """Raw counts of the slides that are learnt from."""
        return RawCounts.of(self.learnt, self.training.panel, self.training.normalise)


class Objective:
    """Runs trials in this process."""

    def __init__(self) -> None:
        self._benches: dict[DataConfig, Bench] = {}
        self._placed: set[tuple[DataConfig, bool, tuple[str, ...]]] = set()

    def bench(self, config: FitConfig) -> Bench:
        """Open the slides of a configuration, unless they are open."""
        if config.data not in self._benches:
            training = open_fold(config).training
            keeps_best = bool(split_validation(training.slides, config)[1])
            self._benches[config.data] = Bench(training, *hold_out(training.slides, config), keeps_best)
        return self._benches[config.data]

    def train(self, config: FitConfig, folder: Path, report: Report) -> Outcome:
        """Train one trial with `folder` for its checkpoints; raises `MagnetError` where nothing finite came out."""
        seed_everything(config.seed)
        bench = self.bench(config)
        training, labels = bench.training, bench.training.labels
        predictor = build_predictor(config, training.slides[0], num_genes=len(training.panel))
        predictor.to(pick_device(config.device))
        set_mean_output(predictor.model, bench.learnt, labels)
        self._place(predictor, training.slides, config)
        judge = validator(bench.held_out, labels)
        assert judge is not None
        scores: list[float] = []

        def validate(predictor: Predictor) -> float:
            scores.append(judge(predictor))
            report(len(scores), scores[-1])
            return scores[-1]

        done = train(
            predictor,
            bench.learnt,
            labels,
            config=config,
            folder=folder,
            validate=validate,
            raw_counts=None if config.loss.likelihood == "mse" else bench.raw_counts,
        )
        epoch = done.best_epoch if bench.keeps_best else done.epoch
        score = done.scores[epoch - 1] if epoch else float("nan")
        if not isfinite(score):
            raise MagnetError("validation", expected="a score", found=str(scores[-1]), remedy="lower optim.lr")
        return Outcome(score, epoch)

    def _place(self, predictor: Predictor, slides: Sequence[Slide], config: FitConfig) -> None:
        """Put features on the device, once for each set of them that a trial reads."""
        read = (config.data, predictor.encoder is None, tuple(predictor.model.context_dims))
        if read not in self._placed:
            tqdm.write(place_features(predictor, slides, config.compute.resident))
            self._placed.add(read)


def hold_out(slides: Sequence[Slide], config: FitConfig) -> tuple[list[Slide], list[Slide]]:
    """Split training slides by patient as a fit does; one patient is held out where its share comes to none."""
    patients = len({slide.patient for slide in slides})
    if patients < 2:
        raise MagnetError(
            "sweep",
            expected="2 training patients or more, as trials are judged on one that they do not learn from",
            found=f"{patients} ({', '.join(slide.slide_id for slide in slides)})",
            remedy="add slides of another patient, or choose a --fold that trains on more",
        )
    learnt, held_out = split_validation(slides, config)
    if held_out:
        return learnt, held_out
    share = min(0.9, 1.5 / patients)  # of 2 patients 1.5, of all others too: 1
    return split_validation(slides, config.changed(validation={"share": share}))

"""Trained runs on slides of a store, or on images, to files of each slide: what `train predict` does.

In: folders of runs, and a store that holds the slides, the runs' own or another, or images, which stage one encodes
first. Out: runs/NAME/predictions/X.h5ad, or other `train.predict.formats`. All fine rows are predicted, each with its
whole neighbourhood.
"""

import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from cache.fingerprint import file_fingerprint
from magnet_core.console import logger, notice, progress
from magnet_core.device import pick_device
from magnet_core.engine.local import HERE
from magnet_core.engine.tasks import Engine, Task
from magnet_core.environment import fault_line
from magnet_core.errors import MagnetError, PlaceError
from magnet_core.levels import SPOT
from magnet_core.symmetry import NUM_SYMMETRIES
from train.data.slide import Slide
from train.learning.trained_run import TrainedRun, load_run
from train.model.predictor import Predictor
from train.model.whole_slide import Advance, predict_slide
from train.places import WEIGHTS
from train.predict.agreement import Agreement
from train.predict.encoded_level import EncodedLevel
from train.predict.formats import H5AD, find_format
from train.predict.from_image import ImageEncoder
from train.predict.learnt import runs_that_learnt
from train.predict.matching_slide import open_slide_for
from train.predict.moments import Moments
from train.predict.opened import Opened
from train.predict.prediction import SlidePrediction
from train.predict.request import ALL, Accepted, PredictConfig

# N fine rows of a slide, P panel genes

log = logger(__name__)


@dataclass(frozen=True)
class Written:
    """A prediction that was written: of which slide, how many rows and genes, where, and a script that shows it.

    agreement  with what was measured, where that was asked for and is there
    """

    slide_id: str
    rows: int
    um: int
    genes: int
    paths: list[Path]
    script: str
    agreement: Agreement | None


def predict_slides(
    config: PredictConfig,
    accepted: Accepted,
    *,
    engine: Engine = HERE,
    tell: Callable[[Written], None] = lambda _: None,
) -> list[str]:
    """Predict all slides that are asked for, and return those that could not be; a single one raises its error.

    `tell` is told of each slide as it is written.
    """
    for name in config.formats:
        find_format(name).require()
    pick_device(config.device)  # one that is not there is told of before anything is done
    names = [sample.slide_id for sample in accepted.images] or list(accepted.slide_ids)
    raises = len(names) + len(accepted.failed) == 1
    tasks = [Task(f"slide {name}", predict_named, (name, config, accepted, raises)) for name in names]
    failed = list(accepted.failed)
    try:
        for task, outcome in engine.run(tasks, lost=lambda _, why: Fault(why)):
            if isinstance(outcome, Fault):
                log.error("failed: %s: %s", task.arguments[0], outcome.line)
                log.debug("%s", outcome.trace)
                failed.append(task.arguments[0])
            else:
                tell(outcome)
    finally:
        _benches.clear()
    return failed


@dataclass(frozen=True)
class Fault:
    """Why a slide could not be predicted, and where that came from."""

    line: str
    trace: str = ""


def predict_named(slide_id: str, config: PredictConfig, accepted: Accepted, raises: bool) -> Written | Fault:
    """Predict one slide, whose own fault is an outcome, too, or raised if that is asked for."""
    bench = bench_of(config, accepted)
    try:
        with bench.opener(slide_id) as opened:
            return predict_one(bench.runs, opened, accepted, config)
    except (MagnetError, OSError, MemoryError, torch.OutOfMemoryError) as error:
        if raises or isinstance(error, PlaceError):
            raise
        return Fault(fault_line(error) or str(error), traceback.format_exc())


@dataclass(frozen=True)
class Bench:
    """What a process has open for all its slides: the runs, and what opens a slide."""

    runs: Sequence[TrainedRun]
    opener: "Opener"


_benches: dict[PredictConfig, Bench] = {}


def bench_of(config: PredictConfig, accepted: Accepted) -> Bench:
    """Load the runs, once a process."""
    if config not in _benches:
        runs = [load_run(member.folder) for member in accepted.members]
        for run in runs:
            run.predictor.to(pick_device(config.device))
        _benches.clear()
        _benches[config] = Bench(runs, opening(runs, accepted, config))
    return _benches[config]


Opener = Callable[[str], AbstractContextManager[Opened]]  # the slide of an id


def opening(runs: Sequence[TrainedRun], accepted: Accepted, config: PredictConfig) -> Opener:
    """Return what opens the slides that are asked for: those of a store, or images, which stage one encodes first."""
    if accepted.stage_one is None:
        store = accepted.store
        assert store is not None

        def from_store(slide_id: str) -> AbstractContextManager[Opened]:
            slides = [open_slide_for(run, store, slide_id) for run in runs]
            return nullcontext(Opened(slides, store.picture(slide_id)))

        return from_store
    encoder = ImageEncoder(runs, accepted.stage_one, config)
    samples = {sample.slide_id: sample for sample in accepted.images}

    def from_image(slide_id: str) -> AbstractContextManager[Opened]:
        return encoder.opened(samples[slide_id], config.features_folder(slide_id))

    return from_image


def predict_one(runs: Sequence[TrainedRun], opened: Opened, accepted: Accepted, config: PredictConfig) -> Written:
    """Predict one slide, which each run sees with its own features, and write it."""
    run, slide = runs[0], opened.slides[0]
    header = slide.fine.geometry_header
    if said := sampling_notice(slide, header):
        notice(said)
    if learnt := runs_that_learnt(accepted.members, slide.slide_id, header):
        names = ", ".join(folder.name for folder in learnt)
        notice(f"{slide.slide_id}: was learnt from (by {names}): how well it is predicted says little of other slides")
    values, deviation = predict_members(runs, opened.slides, accepted, config)
    columns = accepted.members[0].columns
    measured = measured_labels(run, slide, columns) if config.measured else None
    prediction = SlidePrediction(
        values,
        accepted.genes,
        slide,
        header,
        run,
        source_of(accepted, config),
        measured,
        deviation,
        opened.picture,
    )
    files = config.files_to_write(slide.slide_id)
    for name, path in files.items():
        find_format(name).write(prediction, path, config.drawing)
    return Written(
        slide.slide_id,
        len(slide.fine),
        slide.target.um,
        len(accepted.genes),
        list(files.values()),
        showing(files[H5AD], prediction) if H5AD in files else "",
        None
        if measured is None
        else Agreement.of(values, measured, slide, run.panel, columns, normalise=run.config.data.normalise),
    )


def showing(path: Path, prediction: SlidePrediction) -> str:
    """Return a script that shows the first gene of an AnnData file over the tissue, where its picture is there."""
    drawn = f'anndata.read_h5ad("{path}"), color="{prediction.genes.names[0]}"'
    if prediction.picture is None:
        drawn += ", img=False"
    imports = "import anndata, matplotlib.pyplot as plt, squidpy as sq"
    return f"{imports}; sq.pl.spatial_scatter({drawn}); plt.show()"


def predict_members(
    runs: Sequence[TrainedRun], slides: Sequence[Slide], accepted: Accepted, config: PredictConfig
) -> tuple[np.ndarray, np.ndarray | None]:
    """Return the mean over members (N, P), and their standard deviation where there are several."""
    moments = Moments()
    for number, (run, slide, member) in enumerate(zip(runs, slides, accepted.members, strict=True), start=1):
        predictor = run.predictor
        if config.views > 1:
            require_views(slide)
        if isinstance(slide.fine, EncodedLevel):  # its features are made already
            predictor = Predictor(None, predictor.model, predictor.compute)
        of = f" {number}/{len(runs)}" if len(runs) > 1 else ""
        with bars(predictor, slide, views=config.views, of=of) as advance:
            values = predict_slide(predictor, slide, symmetries=range(config.views), advance=advance)
        is_whole = np.array_equal(member.columns, np.arange(values.shape[1]))
        moments.add(values if is_whole else values[:, member.columns])  # the whole is not copied
    return moments.mean, moments.deviation()


def source_of(accepted: Accepted, config: PredictConfig) -> dict[str, Any]:
    """What a prediction's `uns['magnet_hd']` says of its runs."""
    weights = [file_fingerprint(member.folder / WEIGHTS) for member in accepted.members]
    if not config.ensemble:
        return {"run": str(config.runs[0]), "weights": weights[0], "views": config.views}
    runs = [str(member.folder) for member in accepted.members]
    return {"run": runs, "weights": weights, "views": config.views}


def require_views(slide: Slide) -> None:
    """Refuse a slide whose features are of one view alone, where the mean over all is asked for."""
    for level in (slide.fine, *slide.contexts.values()):
        if level.num_views < NUM_SYMMETRIES:
            raise MagnetError(
                f"slide '{slide.slide_id}', {level.name}",
                expected="features of every symmetry of a patch",
                found="those of one view",
                remedy=f"run 'extract run --views {NUM_SYMMETRIES}', or leave --views out",
            )


def sampling_notice(slide: Slide, header: Mapping[str, Any]) -> str:
    """Say that the store holds a part of the slide, and how to have the whole; empty where it holds all."""
    settings, fine = header["settings"], slide.fine
    if settings["sampling"] == ALL or len(fine) < settings["spots" if fine.name == SPOT else "bins"]:
        return ""
    return (
        f"{slide.slide_id}: {len(fine):,} rows are a sample (--sampling {settings['sampling']}); for all that lie in "
        f"tissue: extract run --sampling all --slide {slide.slide_id} into another --store"
    )


def measured_labels(run: TrainedRun, slide: Slide, columns: np.ndarray) -> np.ndarray | None:
    """Labels (N, P) as the run has them, NaN for a gene that was not measured; None on a slide without counts."""
    labels = slide.labels(run.panel, run.config.data.normalise)[slide.fine.name]
    if labels is None:
        notice(f"{slide.slide_id}: no counts, so no layer 'measured'")
        return None
    return labels[:, columns]


@contextmanager
def bars(predictor: Predictor, slide: Slide, *, views: int = 1, of: str = "") -> Iterator[Advance]:
    """Show how many patches are encoded, unless they are, and for how many rows the prediction is made."""
    totals = {"predict": len(slide.fine)}
    if predictor.encoder is not None:
        totals = {"encode": len(slide.fine) * views, **totals}
    with ExitStack() as stack:
        of_work = {
            work: stack.enter_context(progress(total=total, desc=f"{slide.slide_id}: {work}{of}", unit="row"))
            for work, total in totals.items()
        }
        yield lambda work, rows: of_work[work].update(rows)

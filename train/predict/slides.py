"""A trained run on slides of a store, to files of each slide: what `train predict` does.

In: a run's folder, and a store that holds the slides, the run's own or another. Out: runs/NAME/predictions/X.h5ad, or
other `train.predict.formats`. All fine rows of the store are predicted, each with its whole neighbourhood.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from cache.fingerprint import file_fingerprint
from magnet_core.console import logger, notice, progress
from magnet_core.device import pick_device
from magnet_core.environment import fault_line
from magnet_core.errors import MagnetError
from magnet_core.levels import SPOT
from magnet_core.records import Genes
from train.data.slide import Slide
from train.learning.trained_run import TrainedRun, load_run
from train.model.predictor import Predictor
from train.model.whole_slide import Advance, predict_slide
from train.places import WEIGHTS
from train.predict.formats import H5AD, find_format
from train.predict.matching_slide import open_slide_for
from train.predict.prediction import SlidePrediction
from train.predict.request import ALL, Accepted, PredictConfig

# N fine rows of a slide, P panel genes

log = logger(__name__)


@dataclass(frozen=True)
class Written:
    """A prediction that was written: of which slide, how many rows and genes, where, and a script that shows it."""

    slide_id: str
    rows: int
    um: int
    genes: int
    paths: list[Path]
    script: str


def predict_slides(
    config: PredictConfig, accepted: Accepted, *, tell: Callable[[Written], None] = lambda _: None
) -> list[str]:
    """Predict all slides that are asked for, and return those that could not be; a single one raises its error.

    `tell` is told of each file as it is written.
    """
    for name in config.formats:
        find_format(name).require()
    run = load_run(accepted.run)
    run.predictor.to(pick_device(config.device))
    failed = []
    for slide_id in accepted.slide_ids:
        try:
            tell(predict_one(run, accepted, slide_id, config))
        except (MagnetError, OSError, MemoryError, torch.OutOfMemoryError) as error:
            if len(accepted.slide_ids) == 1:
                raise
            log.error("failed: %s: %s", slide_id, fault_line(error) or error, exc_info=True)
            failed.append(slide_id)
    return failed


def predict_one(run: TrainedRun, accepted: Accepted, slide_id: str, config: PredictConfig) -> Written:
    """Predict one slide and write it."""
    store, columns = accepted.store, accepted.columns
    slide = open_slide_for(run, store, slide_id)
    with store.geometry(slide_id) as geometry:
        header = geometry.header
    if said := sampling_notice(slide, header):
        notice(said)
    with bars(run.predictor, slide) as advance:
        values = predict_slide(run.predictor, slide, advance=advance)
    prediction = SlidePrediction(
        values[:, columns] if config.genes else values,  # the whole is not copied
        Genes(run.panel.ids[columns], run.panel.names[columns]),
        slide,
        header,
        run,
        {"run": str(config.run), "weights": file_fingerprint(accepted.run / WEIGHTS)},
        measured_labels(run, slide, columns) if config.measured else None,
        picture=store.picture(slide_id),
    )
    files = config.files(slide_id)
    for name, path in files.items():
        find_format(name).write(prediction, path, config.drawing)
    script = showing(files[H5AD], prediction) if H5AD in files else ""
    return Written(slide_id, len(slide.fine), slide.target.um, len(columns), list(files.values()), script)


def showing(path: Path, prediction: SlidePrediction) -> str:
    """Return a script that shows the first gene of an AnnData file over the tissue, where its picture is there."""
    drawn = f'anndata.read_h5ad("{path}"), color="{prediction.genes.names[0]}"'
    if prediction.picture is None:
        drawn += ", img=False"
    imports = "import anndata, matplotlib.pyplot as plt, squidpy as sq"
    return f"{imports}; sq.pl.spatial_scatter({drawn}); plt.show()"


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
def bars(predictor: Predictor, slide: Slide) -> Iterator[Advance]:
    """Show how many patches are encoded, unless they are, and for how many rows the prediction is made."""
    works = ["encode", "predict"] if predictor.encoder is not None else ["predict"]
    with ExitStack() as stack:
        of_work = {
            work: stack.enter_context(progress(total=len(slide.fine), desc=f"{slide.slide_id}: {work}", unit="row"))
            for work in works
        }
        yield lambda work, rows: of_work[work].update(rows)

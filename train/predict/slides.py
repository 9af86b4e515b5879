"""A trained run on slides of a store, to one AnnData file a slide: what `train predict` does.

In: a run's folder, and a store that holds the slides, the run's own or another. Out: runs/NAME/predictions/X.h5ad, see
`train.predict.h5ad`. All fine rows of the store are predicted, each with its whole neighbourhood.
"""

import shlex
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import typer

from cache.fingerprint import file_fingerprint
from cache.store import Store
from magnet_core.console import progress
from magnet_core.device import pick_device
from magnet_core.errors import MagnetError
from magnet_core.levels import SPOT
from magnet_core.records import Genes
from magnet_core.registry import look_up, near_names
from train.data.slide import Slide
from train.learning.trained_run import DESCRIPTION, WEIGHTS, TrainedRun, load_run
from train.model.predictor import Predictor
from train.model.whole_slide import Advance, predict_slide
from train.predict.h5ad import SlidePrediction, as_anndata, write_h5ad
from train.predict.matching_slide import open_slide_for
from train.predict.spatialdata import require_spatialdata, write_spatialdata
from train.studies.record import RECORD, our_cell

# N fine rows of a slide, P panel genes

ALL = "all"


@dataclass(frozen=True)
class PredictConfig:
    """One `train predict`.

    slides    slide ids, or `all`
    store     None: the one the run was trained on
    out       file of the only slide; None: RUN/predictions/<slide_id>.h5ad
    genes     names or ids of genes to keep; none named: the whole panel
    measured  the labels too, where a slide has counts
    zarr      a SpatialData folder too, beside the file
    """

    run: Path
    slides: tuple[str, ...]
    store: Path | None = None
    out: Path | None = None
    genes: tuple[str, ...] = ()
    measured: bool = False
    zarr: bool = False
    overwrite: bool = False
    device: str = "auto"

    @property
    def trained_in(self) -> Path:
        """The folder of the trained run: the one that is named, or, of a fit, that of its cell."""
        is_run = (self.run / DESCRIPTION).is_file() or not (self.run / RECORD).is_file()
        return self.run if is_run else our_cell(self.run)

    def path(self, slide_id: str) -> Path:
        """Where the prediction of a slide goes."""
        return self.out or self.run / "predictions" / f"{slide_id}.h5ad"

    def paths(self, slide_id: str) -> list[Path]:
        """All that is written of a slide."""
        path = self.path(slide_id)
        return [path, path.with_suffix(".zarr")] if self.zarr else [path]


def predict_slides(config: PredictConfig) -> list[str]:
    """Predict all slides that are asked for, and return those that could not be; a single one raises its error."""
    if config.zarr:
        require_spatialdata()
    run = load_run(config.trained_in)
    store = open_store(config, run)
    slide_ids = choose_slides(store, config)
    columns = choose_genes(run.panel, config)
    run.predictor.to(pick_device(config.device))
    failed = []
    for slide_id in slide_ids:
        try:
            predict_one(run, store, slide_id, columns, config)
        except MagnetError as error:
            if len(slide_ids) == 1:
                raise
            typer.echo(f"failed: {slide_id}: {error}", err=True)
            failed.append(slide_id)
    return failed


def predict_one(run: TrainedRun, store: Store, slide_id: str, columns: np.ndarray, config: PredictConfig) -> None:
    """Predict one slide, write it, and say where it is and how to see it."""
    slide = open_slide_for(run, store, slide_id)
    with store.geometry(slide_id) as geometry:
        header = geometry.header
    if notice := sampling_notice(slide, header):
        typer.echo(notice, err=True)
    with bars(run.predictor, slide) as advance:
        values = predict_slide(run.predictor, slide, advance=advance)
    prediction = SlidePrediction(
        values[:, columns] if config.genes else values,  # the whole is not copied
        Genes(run.panel.ids[columns], run.panel.names[columns]),
        slide,
        header,
        run,
        {"run": str(config.run), "weights": file_fingerprint(config.trained_in / WEIGHTS)},
        measured_labels(run, slide, columns) if config.measured else None,
    )
    path = config.path(slide_id)
    table = as_anndata(prediction)
    write_h5ad(table, path)
    if config.zarr:
        write_spatialdata(table, path.with_suffix(".zarr"))
    written = ", ".join(map(str, config.paths(slide_id)))
    typer.echo(f"{slide_id}: {len(slide.fine):,} rows of {slide.target.um} µm × {len(columns)} genes -> {written}")
    gene = prediction.genes.names[0]
    script = f'import scanpy as sc; sc.pl.spatial(sc.read_h5ad("{path}"), color="{gene}", img_key=None)'
    typer.echo(f"see it: python -c {shlex.quote(script)}")


def open_store(config: PredictConfig, run: TrainedRun) -> Store:
    """Open the store that is named, else the run's own; one that has moved is an error that says how to name it."""
    own = run.config.data.store
    if config.store is None and not (own / "store.json").is_file():
        raise MagnetError(
            config.run,
            expected=f"the store it was trained on, at {own}",
            found="none there",
            remedy="name the store with --store",
        )
    return Store(config.store or own)


def choose_slides(store: Store, config: PredictConfig) -> list[str]:
    """Return the slides to predict; unknown ones, and files that are there, are errors before anything is done."""
    known = store.slide_ids()
    slide_ids = known if ALL in config.slides else list(dict.fromkeys(config.slides))
    for slide_id in slide_ids:
        look_up(dict.fromkeys(known), slide_id, where=f"{store.root}: slide")
    if config.out is not None and (len(slide_ids) > 1 or config.out.suffix != ".h5ad"):
        raise MagnetError(
            "--out",
            expected="one slide, and a name ending in .h5ad",
            found=f"{len(slide_ids)} slides and '{config.out}'",
            remedy="leave --out out, to have a file a slide in the run's folder",
        )
    there = [path for slide_id in slide_ids for path in config.paths(slide_id) if path.exists()]
    if there and not config.overwrite:
        raise MagnetError(
            there[0],
            expected="no such file yet",
            found=f"it is there, one of {len(there)}" if len(there) > 1 else "it is there",
            remedy="pass --overwrite, or leave the slide out" if config.out is None else "pass --overwrite",
        )
    return slide_ids


def choose_genes(panel: Genes, config: PredictConfig) -> np.ndarray:
    """Columns (P,) of the panel that are kept."""
    column_of = {name: column for names in (panel.ids, panel.names) for column, name in enumerate(names.tolist())}
    unknown = [name for name in config.genes if name not in column_of]
    if unknown:
        near = near_names(unknown[0], panel.names.tolist())
        raise MagnetError(
            "--genes",
            expected=f"genes of the run's panel of {len(panel)}",
            found=", ".join(f"'{name}'" for name in unknown),
            remedy=near if near.startswith("did you mean") else f"see 'panel' in {config.trained_in / DESCRIPTION}",
        )
    return np.array(list(dict.fromkeys(column_of[name] for name in config.genes)) or range(len(panel)), np.int64)


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
        typer.echo(f"{slide.slide_id}: no counts, so no layer 'measured'", err=True)
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

"""Slides that are in no store: stage one makes their features, as those were made that the runs were trained on.

In: trained runs, and how their features were made. Out: for each image open `Slide`s, one a run, over features that
wait in a folder beside the prediction until it is written. No pixel is kept. The encoders that were fine-tuned run in
the same pass as the frozen one, so that each pixel is decoded once. A pass that was stopped goes on where it was.
"""

import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from cache.fingerprint import digest
from cache.reader import ArrayFile
from cache.store import GEOMETRY
from extract.config import EmbeddingConfig, GeometryConfig, RunConfig
from extract.faults import slide_faults
from extract.geometry import geometry_settings
from extract.pipeline import embedding_settings
from extract.streamed import Encoders, FineEncoder, Streamed, stream_slide
from magnet_core.backbones.names import with_revision
from magnet_core.console import human_bytes, notice
from magnet_core.levels import find_target
from magnet_core.records import Genes, Sample
from train.data.slide import LevelData, Slide, require_levels
from train.learning.stage_one import STAIN, StageOne
from train.learning.trained_run import TrainedRun
from train.model.build import rebuild_encoder
from train.predict.encoded_level import EncodedLevel
from train.predict.opened import Opened
from train.predict.request import PredictConfig


class ImageEncoder:
    """Makes the features of images for some runs of one target, and opens them as slides."""

    def __init__(self, runs: Sequence[TrainedRun], made: StageOne, config: PredictConfig) -> None:
        self._runs = runs
        self._config = extraction(made, runs[0], config)
        self._target = find_target(runs[0].config.data.target)
        device = next(runs[0].predictor.parameters()).device
        header = {"backbone": made.backbone, "weights": made.weights, "settings": made.settings}
        frozen = rebuild_encoder(header).to(device)
        fine = [
            FineEncoder(self._target.fine, predictor.encoder, predictor.own, self._precision(run), made.working_mpp)
            for run in runs
            if (predictor := run.predictor).encoder is not None
        ]
        self._encoders = Encoders(frozen, embedding_settings(self._config, frozen), fine, whole=len(fine) < len(runs))

    def _precision(self, run: TrainedRun) -> EmbeddingConfig:
        return self._config.embedding.changed(precision=run.config.compute.precision)

    @contextmanager
    def opened(self, sample: Sample, folder: Path) -> Iterator[Opened]:
        """Yield the slide of an image as each run sees it; `folder` holds its features, and is gone afterwards.

        It stays where something was encoded and an error or a signal comes between.
        """
        forget_others(folder, sample, self._config)
        is_used = False
        try:
            with slide_faults(sample.slide_id):
                tell = teller(sample, folder)
                files = stream_slide(sample, folder, self._encoders, config=self._config, tell=tell)
            yield Opened(self._open(sample, files), files.picture)
            is_used = True
        finally:
            if is_used or all(path.name == GEOMETRY for path in folder.glob("*.lmdb*")):
                shutil.rmtree(folder, ignore_errors=True)

    def _open(self, sample: Sample, files: Streamed) -> list[Slide]:
        geometry, frozen, *fine = (ArrayFile(path) for path in (files.geometry, files.frozen, *files.fine))
        require_levels(self._target, geometry, frozen, *fine, where=f"slide '{sample.slide_id}'")
        genes = Genes(geometry.read("genes/id"), geometry.read("genes/name"))
        name, of_tuned = self._target.fine, iter(fine)
        slides = []
        for run in self._runs:
            data = run.config.data
            if run.predictor.encoder is None:
                level = LevelData(name, geometry, frozen, config=data)
            else:
                level = EncodedLevel(name, geometry, next(of_tuned), config=data, frozen=frozen)
            contexts = {each: LevelData(each, geometry, frozen, config=data) for each in self._target.contexts}
            blends = data.contexts == "blended"
            slides.append(
                Slide(sample.slide_id, sample.patient, self._target, genes, level, contexts, frozen.header, blends)
            )
        return slides


def extraction(made: StageOne, run: TrainedRun, config: PredictConfig) -> RunConfig:
    """Settings of stage one: those that the run's features were made with, for every row of its target."""
    weights, settings = made.weights, made.settings
    laid = {name: value for name, value in made.laid.items() if name != STAIN}
    return RunConfig(
        geometry=GeometryConfig(targets=(run.config.data.target,), sampling="all", **laid),
        stain=made.laid.get(STAIN, "as_is"),
        working_mpp=made.working_mpp,
        embedding=EmbeddingConfig(
            backbone=with_revision(made.backbone, weights.get("revision")),
            weights=weights["source"],
            weights_sha256=weights.get("sha256", ""),
            token_grid=settings["token_grid"],
            own=settings.get("own", 0) if run.config.data.own else 0,
            views=config.views,
            precision=settings["precision"],
            seed=weights["seed"],
        ),
        device=config.device,
        batch_size=config.batch_size,
        workers=config.workers,
        pixels=False,
    )


def forget_others(folder: Path, sample: Sample, config: RunConfig) -> None:
    """Remove what an earlier command has left of another image, or of other settings."""
    path = folder / GEOMETRY
    if path.exists():
        with ArrayFile(path) as geometry:
            laid_with = geometry.header.get("digest")
        if laid_with == digest(geometry_settings(sample, config)):
            return
    shutil.rmtree(folder, ignore_errors=True)


def teller(sample: Sample, folder: Path) -> Callable[[Mapping[str, int], int], None]:
    """Return what says, before a slide is encoded, how many rows it has and what room its features take."""

    def tell(rows: Mapping[str, int], nbytes: int) -> None:
        of_levels = ", ".join(f"{count:,} {name}" for name, count in rows.items())
        goes_on = any(folder.glob("*.lmdb.partial"))
        notice(
            f"{sample.slide_id}: {of_levels} rows; features take {human_bytes(nbytes)} in {folder} until the "
            f"prediction is written{'; going on after what an earlier command encoded' if goes_on else ''}"
        )

    return tell

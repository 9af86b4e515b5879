"""What the tests of stage two share: a small configuration, and the parts of a run that was not trained."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from cache.store import Store
from magnet_core.levels import find_target
from magnet_core.records import Genes
from train.data.slide import Slide, open_slide_data
from train.data.training_side import TrainingSide
from train.model.build import build_predictor
from train.model.predictor import Predictor
from train.settings.fit import FitConfig, load_config
from train.studies.settings import StudyConfig

NUM_GENES = 20


def config(store: Store, runs: Path, *settings: str) -> FitConfig:
    """Small and quick to learn."""
    return load_config(
        None,
        [
            f"data.store={store.root}", f"runs={runs}", f"split.file={runs / 'folds.json'}",
            "data.backbone=timm:test_convnext", f"data.panel={NUM_GENES}", "optim.name=adamw", "optim.lr=3e-3",
            "optim.epochs=2", "optim.batch_size=64", "model.width=32", "validation.few=none", *settings,
        ],
    )  # fmt: skip


def small_study(store: Store, runs: Path, *settings: str) -> StudyConfig:
    """A study of one epoch on cached features."""
    return StudyConfig(fit=config(store, runs, "encoder.mode=frozen", "optim.epochs=1", *settings))


def edited(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Change a sealed JSON file as a person would who takes its checksums out."""
    content = {key: value for key, value in json.loads(path.read_text()).items() if key not in ("checksum", "files")}
    change(content)
    path.write_text(json.dumps(content))


def parts(store: Store, settings: FitConfig, slide_id: str = "S1") -> tuple[Slide, Predictor]:
    """A slide, and an untrained predictor for it."""
    slide = open_slide_data(store, slide_id, find_target(settings.data.target), settings.data)
    torch.manual_seed(0)
    return slide, build_predictor(settings, slide, num_genes=NUM_GENES)


def side_of(slide: Slide, settings: FitConfig) -> TrainingSide:
    """One slide and its first genes, to learn from."""
    panel = Genes(slide.genes.ids[:NUM_GENES], slide.genes.names[:NUM_GENES])
    labels = {slide.slide_id: labels_of(slide, settings)}
    return TrainingSide([slide], labels, panel, settings.data.normalise)


def labels_of(slide: Slide, settings: FitConfig) -> dict[str, Any]:
    """Labels of the slide's first genes."""
    panel = Genes(slide.genes.ids[:NUM_GENES], slide.genes.names[:NUM_GENES])
    return slide.labels(panel, settings.data.normalise)

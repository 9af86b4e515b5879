"""Heads that learn on cached features first: the training with the encoder begins where theirs ends."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from cache.store import Store
from magnet_core.global_seeds import seed_everything
from magnet_core.levels import find_target
from tests.train.setting import config, side_of
from train.data.fold_choice import choose_fold
from train.data.slide import open_slide_data
from train.learning import loop
from train.learning.checkpoint import CHECKPOINT
from train.learning.loop import training_step
from train.pipeline import fit
from train.places import WEIGHTS
from train.settings.fit import FitConfig
from train.studies.cell import Cell
from train.systems.magnet import HEADS, MagNetSystem
from train.systems.table import MAGNET, rivals_config

START = ("optim.epochs=2", "optim.batch_size=100", "optim.lr=5e-3", "finetune.epochs=1", "finetune.batch_size=64")


class StoppedError(Exception):
    """In place of a power cut."""


def learnt(store: Store, settings: FitConfig, folder: Path) -> MagNetSystem:
    slide = open_slide_data(store, "S1", find_target(settings.data.target), settings.data)
    seed_everything(settings.seed)
    system = MagNetSystem(settings, folder)
    system.fit(side_of(slide, settings))
    return system


def test_the_encoder_joins_where_a_training_on_cached_features_ends(small_store: Store, tmp_path: Path) -> None:
    settings = config(small_store, tmp_path, *START, "finetune.lr=1e-12", "model.dropout=0")
    joined = learnt(small_store, settings, tmp_path / "joined").predictor
    alone = learnt(small_store, settings.of_heads(), tmp_path / "alone").predictor
    assert joined.encoder is not None
    assert alone.encoder is None
    for name, value in alone.model.state_dict().items():
        torch.testing.assert_close(joined.model.state_dict()[name], value, rtol=0, atol=1e-7, msg=name)
    at_once = learnt(small_store, settings.changed(finetune={"epochs": 0}), tmp_path / "once").predictor
    others = at_once.model.state_dict().items()
    assert np.mean([not torch.equal(value, joined.model.state_dict()[name]) for name, value in others]) > 0.9


@pytest.mark.parametrize("steps", [3, 12])
def test_stopped_in_either_part_it_goes_on_to_the_same_weights(
    small_store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, steps: int
) -> None:
    settings = [*START, "compute.checkpoint_minutes=0", "name=t", "baselines=false", "validation.share=0"]
    whole = fit(config(small_store, tmp_path / "whole", *settings)).cell()
    taken = iter(range(100))

    def interrupted(*arguments: Any, **options: Any) -> object:
        if next(taken) == steps:
            raise StoppedError
        return training_step(*arguments, **options)

    stopped = config(small_store, tmp_path / "stopped", *settings)
    monkeypatch.setattr(loop, "training_step", interrupted)
    with pytest.raises(StoppedError):
        fit(stopped)
    monkeypatch.undo()
    (left,) = (tmp_path / "stopped").glob(f"cells/*/{HEADS}/{CHECKPOINT}")
    assert (left.parents[1] / CHECKPOINT).exists() == (steps > 10)
    resumed = fit(stopped).cell()
    assert (whole.folder / WEIGHTS).read_bytes() == (resumed.folder / WEIGHTS).read_bytes()
    assert not left.exists()
    assert load_file(whole.folder / WEIGHTS).keys() == load_file(resumed.folder / WEIGHTS).keys()


def test_where_the_encoder_stays_frozen_the_heads_are_all(small_store: Store, tmp_path: Path) -> None:
    def name(*settings: str) -> str:
        one = config(small_store, tmp_path, *settings)
        return Cell(MAGNET, one, choose_fold(one), rivals_config()).folder(tmp_path, small_store).name

    assert name("encoder.mode=frozen") == name("encoder.mode=frozen", "finetune.epochs=2")
    assert len({name(), name("finetune.epochs=2"), name("finetune.epochs=2", "finetune.lr=1e-4")}) == 3
    assert name() == name("finetune.epochs=0")


def test_heads_of_a_finished_cell_with_the_encoder_frozen_are_taken_as_they_are(
    small_store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = [*START, "name=t", "baselines=false", "validation.share=0"]
    whole = fit(config(small_store, tmp_path / "whole", *settings)).cell()
    heads = fit(config(small_store, tmp_path / "both", *settings, "name=f", "encoder.mode=frozen")).cell()
    steps: list[bool] = []

    def counted(trainee: Any, *arguments: Any, **options: Any) -> object:
        steps.append(trainee.module.encoder is not None)
        return training_step(trainee, *arguments, **options)

    monkeypatch.setattr(loop, "training_step", counted)
    joined = fit(config(small_store, tmp_path / "both", *settings)).cell()
    assert steps
    assert all(steps)
    assert heads.folder.parent == joined.folder.parent
    assert (whole.folder / WEIGHTS).read_bytes() == (joined.folder / WEIGHTS).read_bytes()

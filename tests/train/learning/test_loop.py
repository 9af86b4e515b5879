"""Training: going on where it was stopped, validation slides, the running average, frozen bins, what stops it."""

import json
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from typer.testing import CliRunner

from cache.store import Store
from magnet_core.console import NOTICE
from magnet_core.errors import MagnetError
from tests.train.setting import config, parts, side_of
from train.cli import app
from train.data.slide import LevelData, Slide
from train.data.training_side import hold_out
from train.learning import loop as trainer
from train.learning.checkpoint import CHECKPOINT
from train.learning.loop import Validate, start, train, training_step
from train.learning.progress import Progress, TrainingState
from train.learning.trained_run import load_run
from train.model.predictor import Predictor
from train.model.whole_slide import predict_slide
from train.pipeline import fit
from train.settings.fit import FitConfig
from train.systems import magnet as magnet_system
from train.systems.magnet import loop_settings, magnet_trainee


def weights(predictor: Predictor) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in predictor.state_dict().items()}


def train_anew(store: Store, settings: FitConfig, folder: Path) -> Predictor:
    folder.mkdir(exist_ok=True)
    slide, predictor = parts(store, settings)
    torch.manual_seed(1)
    learn(slide, predictor, settings, folder, lambda: 0.0)
    return predictor


def learn(
    slide: Slide, predictor: Predictor, settings: FitConfig, folder: Path, validate: Validate | None = None
) -> Progress:
    trainee = magnet_trainee(predictor, side_of(slide, settings), settings)
    return train(trainee, loop_settings(settings), folder=folder, validate=validate, settings=settings.plain())


class StoppedError(Exception):
    """In place of a power cut."""


@pytest.mark.parametrize(
    "settings",
    [
        ["model.dropout=0.2"],
        ["optim.name=sgd", "optim.ema=0.9"],
        ["encoder.mode=frozen", "halo=1", "optim.warmup=0.5"],
        ["encoder.mode=last", "encoder.last_blocks=1", "compute.micro_batch=16"],
    ],
)
@pytest.mark.parametrize("steps", [1, 3, 5])
def test_a_training_that_goes_on_ends_as_one_that_never_stopped(
    small_store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, settings: list[str], steps: int
) -> None:
    wanted = config(small_store, tmp_path, "compute.checkpoint_minutes=0", "optim.batch_size=70", *settings)
    expected = weights(train_anew(small_store, wanted, tmp_path / "whole"))

    def interrupted(trainee: Any, state: TrainingState, *arguments: Any, **options: Any) -> object:
        if state.progress.step == steps:
            raise StoppedError
        return training_step(trainee, state, *arguments, **options)

    monkeypatch.setattr(trainer, "training_step", interrupted)
    with pytest.raises(StoppedError):
        train_anew(small_store, wanted, tmp_path / "stopped")
    monkeypatch.undo()
    got = weights(train_anew(small_store, wanted, tmp_path / "stopped"))
    assert got.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(got[name], value, rtol=0, atol=0)


def test_a_checkpoint_of_another_configuration_is_refused_by_name(small_store: Store, tmp_path: Path) -> None:
    settings = config(small_store, tmp_path)
    slide, predictor = parts(small_store, settings)
    state = start(magnet_trainee(predictor, side_of(slide, settings), settings), loop_settings(settings))
    state.save(tmp_path, settings={"optim": {"lr": 1.0, "epochs": 2}, "device": "cpu"})
    with pytest.raises(MagnetError, match=r"one that differs in optim\.lr; give another --name"):
        state.resume(tmp_path, settings={"optim": {"lr": 2.0, "epochs": 2}, "device": "cuda"})


def test_a_finished_fit_leaves_no_checkpoint_and_a_stopped_one_goes_on(
    small_store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(NOTICE, "magnet_hd")
    whole = fit(config(small_store, tmp_path / "whole"))
    assert not (whole.cell().folder / CHECKPOINT).exists()
    assert list(whole.cell().folder.glob("best*")) == []

    settings = config(small_store, tmp_path / "stopped", "compute.checkpoint_minutes=0")
    calls = iter(range(100))

    def interrupted(*arguments: object, **options: object) -> object:
        if next(calls) == 5:
            raise StoppedError
        return training_step(*arguments, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(trainer, "training_step", interrupted)
    with pytest.raises(StoppedError):
        fit(settings)
    monkeypatch.undo()
    assert not (settings.runs / settings.run_name).exists()
    resumed = fit(settings)
    assert "going on after step 5" in caplog.text
    assert resumed.systems == whole.systems


def test_stopped_after_training_it_does_not_train_again(
    small_store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = config(small_store, tmp_path, "encoder.mode=frozen")

    def stop(*_: object, **__: object) -> None:
        raise StoppedError

    with monkeypatch.context() as patched:
        patched.setattr(magnet_system, "predict_slide", stop)
        with pytest.raises(StoppedError):
            fit(settings)
    with monkeypatch.context() as patched:
        patched.setattr(trainer, "training_step", stop)
        result = fit(settings)
    whole = fit(config(small_store, tmp_path / "whole", "encoder.mode=frozen"))
    assert result.systems == whole.systems


@pytest.mark.slow
@pytest.mark.parametrize("signal_number", [signal.SIGINT, signal.SIGTERM, signal.SIGUSR2])
def test_asked_to_stop_it_saves_and_ends_with_the_signals_code(
    small_store: Store, tmp_path: Path, signal_number: signal.Signals
) -> None:
    settings = [
        f"--store={small_store.root}", f"--runs={tmp_path}", "--backbone=timm:test_convnext", "--name=stopped",
        "--set=data.panel=20", "--set=optim.epochs=400", "--set=optim.batch_size=32", "--set=model.width=32",
    ]  # fmt: skip
    command = [sys.executable, "-m", "train", "fit", *settings]
    with subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        while not any(tmp_path.glob("cells/**/tensorboard/*")):
            assert process.poll() is None
            time.sleep(0.2)
        time.sleep(2)
        process.send_signal(signal_number)
        _, errors = process.communicate(timeout=120)
    assert process.returncode == 128 + signal_number
    assert "Traceback" not in errors
    assert list(tmp_path.glob(f"cells/magnet-*/**/{CHECKPOINT}"))


def test_validation_slides_are_whole_patients_of_the_training_side(small_store: Store, tmp_path: Path) -> None:
    settings = config(small_store, tmp_path, "validation.share=0.4")
    slides = [parts(small_store, settings, name)[0] for name in ("S1", "S2", "S3")]
    side = replace(side_of(slides[0], settings), slides=slides)
    held = hold_out(side, settings)
    assert len(held.held_out) == 1
    learnt = held.learnt.slides
    assert {slide.patient for slide in learnt}.isdisjoint(each.slide.patient for each in held.held_out)
    assert sorted([*(slide.slide_id for slide in learnt), *map(str, held.held_out)]) == ["S1", "S2", "S3"]
    few = hold_out(side, config(small_store, tmp_path, "validation.share=0.2"))
    assert (few.learnt.slides, few.held_out) == (slides, [])


def test_the_best_epoch_is_kept_and_training_stops_after_the_patience(small_store: Store, tmp_path: Path) -> None:
    settings = config(small_store, tmp_path, "optim.epochs=9", "validation.patience=2", "encoder.mode=frozen")
    slide, predictor = parts(small_store, settings)
    scores, seen = iter([0.1, 0.5, 0.3, 0.4, 0.9, 1.0]), []

    def validate() -> float:
        seen.append(weights(predictor))
        return next(scores)

    done = learn(slide, predictor, settings, tmp_path, validate)
    assert done.scores == [0.1, 0.5, 0.3, 0.4]
    assert done.kept_epoch == 2
    for name, value in weights(predictor).items():
        torch.testing.assert_close(value, seen[1][name], rtol=0, atol=0)
        assert name.startswith("model.")


def test_a_training_that_stopped_early_is_over_when_it_goes_on(
    small_store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = config(small_store, tmp_path, "optim.epochs=9", "validation.patience=1", "encoder.mode=frozen")
    slide, predictor = parts(small_store, settings)
    scores = iter([0.2, 0.1])
    learn(slide, predictor, settings, tmp_path, lambda: next(scores))
    kept = weights(predictor)

    def refuse(*_: object, **__: object) -> object:
        raise AssertionError("trained again")

    monkeypatch.setattr(trainer, "training_step", refuse)
    _, again = parts(small_store, settings)
    done = learn(slide, again, settings, tmp_path, lambda: next(scores))
    assert done.scores == [0.2, 0.1]
    for name, value in weights(again).items():
        torch.testing.assert_close(value, kept[name], rtol=0, atol=0)


def test_a_validated_fit_says_which_slides_chose(small_store: Store, tmp_path: Path) -> None:
    result = fit(config(small_store, tmp_path, "validation.share=0.5", "encoder.mode=frozen"))
    described = json.loads((result.cell().folder / "run.json").read_text())
    assert len(described["validation_slides"]) == 1
    assert set(described["validation_slides"]) < set(result.cell().cell.fold.train)
    assert len(described["validation_scores"]) == 2
    assert described["kept_epoch"] in (1, 2)


def test_the_running_average_is_what_is_kept(small_store: Store, tmp_path: Path) -> None:
    settings = config(small_store, tmp_path, "optim.ema=0.5", "encoder.mode=frozen", "optim.epochs=1")
    slide, predictor = parts(small_store, settings)
    trainee = magnet_trainee(predictor, side_of(slide, settings), settings)
    state = start(trainee, loop_settings(settings))
    literal = weights(predictor)
    for step, batch in enumerate(trainee.gather(trainee.draw_epoch(0))):
        training_step(trainee, state, batch, clip_norm=0.0)
        now = weights(predictor)
        literal = now if step == 0 else {name: 0.5 * literal[name] + 0.5 * now[name] for name in now}
    state.finish(tmp_path)
    for name, value in weights(predictor).items():
        torch.testing.assert_close(value, literal[name])


def test_frozen_bins_need_no_encoder_and_read_no_pixels(
    small_store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = config(small_store, tmp_path, "encoder.mode=frozen")

    def refuse(*_: object) -> np.ndarray:
        raise AssertionError("pixels were read")

    slide, predictor = parts(small_store, settings)
    monkeypatch.setattr(LevelData, "pixels", refuse)
    learn(slide, predictor, settings, tmp_path)
    assert predictor.encoder is None


def test_a_frozen_run_is_loaded_without_encoder(small_store: Store, tmp_path: Path) -> None:
    result = fit(config(small_store, tmp_path, "encoder.mode=frozen"))
    assert load_run(result.cell().folder).predictor.encoder is None
    assert all(name.startswith("model.") for name in load_file(result.cell().folder / "model.safetensors"))


@pytest.mark.parametrize("mode", ["lora", "last"])
def test_a_partly_tuned_run_is_loaded_with_ordinary_weights(small_store: Store, tmp_path: Path, mode: str) -> None:
    settings = config(small_store, tmp_path, f"encoder.mode={mode}", "optim.epochs=1", "fold=1")
    result = fit(settings)
    loaded = load_run(result.cell().folder)
    (test_slide,) = result.cell().cell.fold.test
    slide, _ = parts(small_store, settings, test_slide)
    truth = slide.labels(loaded.panel, settings.data.normalise)[slide.fine.name]
    assert truth is not None
    error = np.mean((predict_slide(loaded.predictor, slide) - truth) ** 2)
    assert error == pytest.approx(result.systems["magnet"]["mse"], rel=1e-4)


def test_ablations_and_frozen_bins_are_options(small_store: Store, tmp_path: Path) -> None:
    options = ["--store", str(small_store.root), "--runs", str(tmp_path), "--backbone", "timm:test_convnext"]
    small = ["--set", "data.panel=20", "--set", "optim.epochs=1", "--set", "model.width=32", "--name", "small"]
    left_out = ["--bins", "frozen", "--without", "gat", "--without", "consistency"]
    shown = CliRunner().invoke(app, ["fit", *options, *small, *left_out])
    assert shown.exit_code == 0, shown.output
    assert "MagNet" in shown.output
    made = load_run(next(tmp_path.glob("cells/magnet-*"))).config
    assert (made.encoder.mode, made.model.use_gat, made.model.use_multires) == ("frozen", False, True)
    assert not made.loss.consistency


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--bins", "frozen", "--set", "encoder.mode=lora"], "--bins: expected --bins or encoder.mode, found both"),
        (["--name", "../elsewhere"], "name: expected a folder below --runs"),
    ],
)
def test_options_that_contradict_or_lead_elsewhere_are_one_line(options: list[str], says: str) -> None:
    with pytest.raises(MagnetError, match=says):
        CliRunner().invoke(app, ["fit", *options], catch_exceptions=False)


def test_a_name_of_digits_is_a_name_and_a_refused_run_leaves_no_folder(small_store: Store, tmp_path: Path) -> None:
    options = ["--store", str(small_store.root), "--runs", str(tmp_path), "--fold", "9", "--name", "2024"]
    with pytest.raises(MagnetError, match="--fold: expected 0 to 2"):
        CliRunner().invoke(app, ["fit", *options, "--backbone", "timm:test_convnext"], catch_exceptions=False)
    assert not (tmp_path / "2024").exists()


def test_micro_batches_train_to_the_same_weights(small_store: Store, tmp_path: Path) -> None:
    settings = ["model.dropout=0", "optim.name=sgd", "optim.lr=1e-2", "optim.epochs=1"]
    direct = train_anew(small_store, config(small_store, tmp_path, *settings), tmp_path / "a")
    cached = train_anew(small_store, config(small_store, tmp_path, "compute.micro_batch=10", *settings), tmp_path / "b")
    for (name, one), other in zip(weights(direct).items(), weights(cached).values(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-5, msg=name)


def test_a_loss_that_is_not_finite_stops_with_step_slide_and_rows(small_store: Store, tmp_path: Path) -> None:
    settings = config(small_store, tmp_path, "optim.name=sgd", "optim.lr=1e30", "encoder.mode=frozen")
    with pytest.raises(
        MagnetError, match=r"step \d+, slide 'S1', rows \d+ to \d+: expected a finite loss, found (nan|inf)"
    ):
        train_anew(small_store, settings, tmp_path / "run")

import multiprocessing
import os
import signal
from dataclasses import replace
from pathlib import Path

import numpy as np
import optuna
import pytest
from optuna.trial import TrialState

from cache.store import Store
from magnet_core.errors import MagnetError
from magnet_core.interrupt import StopRequest
from tests.train.setting import config
from tests.train.sweep.setting import sweep_of
from train.data import training_side
from train.data.fold_sides import open_fold
from train.data.tissue_blocks import TissueBlocks
from train.settings.fit import FitConfig
from train.sweep.config import Sweep
from train.sweep.interrupts import Interrupts
from train.sweep.objective import Objective, Outcome, Report, hold_out_some
from train.sweep.run import refit_config, run_sweep
from train.sweep.study import Worker, finished, open_study
from train.sweep.trials import work
from train.systems import magnet


class Curves(Objective):
    """In the place of training: the n-th trial's scores, epoch by epoch."""

    def __init__(self, curves: list[list[float]]) -> None:
        super().__init__()
        self._curves = iter(curves)

    def train(self, config: FitConfig, folder: Path, report: Report) -> Outcome:
        scores = next(self._curves)
        for epoch, score in enumerate(scores, start=1):
            report(epoch, score)
        return Outcome(max(scores), scores.index(max(scores)) + 1)


def told(study: optuna.Study, sweep: Sweep, objective: Objective, *, total: int) -> None:
    with Interrupts() as interrupts:
        work(study, sweep, objective, interrupts, total=total)


class Deaf(Curves):
    """A training that is asked to stop when no step is left."""

    def train(self, config: FitConfig, folder: Path, report: Report) -> Outcome:
        with StopRequest():
            os.kill(os.getpid(), signal.SIGTERM)
        return super().train(config, folder, report)


def draw_and_be_killed(sweep: Sweep, total: int) -> None:
    with open_study(sweep.folder, sweep.search) as study, Worker(study, sweep) as worker:
        assert worker.draw(total) is not None
        os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.parametrize("pruner", ["median", "asha"])
def test_a_trial_that_lags_is_pruned_and_a_leading_one_is_not(small_store: Store, tmp_path: Path, pruner: str) -> None:
    search = f'pruner = "{pruner}"\nreduction = 2'
    sweep = sweep_of(small_store, tmp_path / "runs", search=search, epochs=4)
    good, bad = [0.2, 0.3, 0.4, 0.5], [0.1, 0.1, 0.1, 0.1]
    with open_study(sweep.folder, sweep.search) as study:
        told(study, sweep, Curves([good, good, good, bad, [0.3, 0.4, 0.6, 0.5]]), total=5)
        trials = study.get_trials()
    assert [trial.state for trial in trials] == [TrialState.COMPLETE] * 3 + [TrialState.PRUNED, TrialState.COMPLETE]
    assert len(trials[3].intermediate_values) == 1
    assert trials[4].value == 0.6
    assert trials[4].user_attrs["kept_epoch"] == 3


def test_a_killed_process_s_trial_does_not_count(small_store: Store, tmp_path: Path) -> None:
    sweep = sweep_of(small_store, tmp_path / "runs")
    process = multiprocessing.get_context("spawn").Process(target=draw_and_be_killed, args=(sweep, 2))
    process.start()
    process.join(60)
    assert process.exitcode == -signal.SIGKILL
    with open_study(sweep.folder, sweep.search) as study:
        assert [trial.state for trial in study.get_trials()] == [TrialState.RUNNING]
        told(study, sweep, Curves([[0.1], [0.2]]), total=2)
        trials = study.get_trials()
    assert [trial.state for trial in trials] == [TrialState.FAIL, TrialState.COMPLETE, TrialState.COMPLETE]
    assert len(finished(trials)) == 2


def test_a_signal_that_a_training_took_at_its_end_stops_the_sweep(small_store: Store, tmp_path: Path) -> None:
    sweep, before = sweep_of(small_store, tmp_path / "runs"), signal.getsignal(signal.SIGTERM)
    with open_study(sweep.folder, sweep.search) as study:
        with Interrupts() as interrupts, pytest.raises(KeyboardInterrupt):
            work(study, sweep, Deaf([[0.1], [0.2]]), interrupts, total=2)
        assert [trial.state for trial in study.get_trials()] == [TrialState.COMPLETE]
    assert signal.getsignal(signal.SIGTERM) == before


def test_a_trial_under_way_elsewhere_is_left_alone_and_counts_towards_the_total(
    small_store: Store, tmp_path: Path
) -> None:
    sweep = sweep_of(small_store, tmp_path / "runs")
    with (
        open_study(sweep.folder, sweep.search) as one,
        open_study(sweep.folder, sweep.search) as other,
        Worker(one, sweep) as first,
        Worker(other, sweep) as second,
    ):
        assert first.draw(2) is not None
        assert second.draw(2) is not None
        assert first.draw(2) is None
        assert [trial.state for trial in one.get_trials()] == [TrialState.RUNNING] * 2


def test_a_trial_that_diverges_is_kept_with_its_line(small_store: Store, tmp_path: Path) -> None:
    sweep = sweep_of(small_store, tmp_path / "runs", space='"optim.lr" = {choices = [1e30]}')
    with pytest.raises(MagnetError, match="found none of 1, the first refused by: .*expected a finite loss"):
        run_sweep(sweep, trials=1)


def test_one_patient_is_held_out_where_the_share_comes_to_none(small_store: Store, tmp_path: Path) -> None:
    sweep = sweep_of(small_store, tmp_path / "runs")
    side = open_fold(sweep.base).training
    held = hold_out_some(side, sweep.base)
    assert len(held.learnt.slides) == len(held.held_out) == 1
    assert {slide.patient for slide in held.learnt.slides}.isdisjoint({each.slide.patient for each in held.held_out})
    with pytest.raises(MagnetError, match=r"expected 2 training patients or more.*found 1 \(S"):
        hold_out_some(replace(side, slides=side.slides[:1]), sweep.base)


def test_of_one_patient_with_room_blocks_are_held_out(
    small_store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sweep = sweep_of(small_store, tmp_path / "runs", settings="validation.share = 0")
    side = open_fold(sweep.base).training
    blocks = TissueBlocks(np.zeros((1, 2)), 100.0, 50.0)
    monkeypatch.setattr(training_side, "draw_blocks", lambda *_, **__: blocks)
    (held,) = hold_out_some(replace(side, slides=side.slides[:1]), sweep.base).held_out
    assert held.blocks is blocks


def test_a_refit_trains_the_encoder_that_was_frozen_for_speed_and_leaves_another_mode(
    small_store: Store, tmp_path: Path
) -> None:
    sweep = sweep_of(small_store, tmp_path / "runs")
    config = refit_config(sweep, {"optim.lr": 5e-3, "model.rounds": 2})
    assert (config.encoder.mode, config.optim.lr, config.model.rounds) == ("full", 5e-3, 2)
    assert config.runs / config.run_name == sweep.folder / "refit"
    lora = sweep_of(small_store, tmp_path / "runs", settings='encoder.mode = "lora"')
    assert refit_config(lora, {}).encoder.mode == "lora"


def test_a_refit_is_tested_and_kept(small_store: Store, tmp_path: Path) -> None:
    sweep = sweep_of(small_store, tmp_path / "runs", settings="baselines = false")
    first = run_sweep(sweep, trials=1, refit=True)
    assert first.refit is not None
    assert set(first.refit.systems) == {"magnet"}
    again = run_sweep(sweep, trials=1, refit=True).refit
    assert again is not None
    assert again.text == first.refit.text
    with open_study(sweep.folder, sweep.search) as study:
        told(study, sweep, Curves([[0.99]]), total=2)
    other = run_sweep(sweep, trials=2, refit=True).refit
    assert other is not None
    assert other.folder == first.refit.folder
    assert other.cell().folder != first.refit.cell().folder


@pytest.mark.slow
def test_two_processes_share_a_sweep(small_store: Store, tmp_path: Path) -> None:
    sweep = sweep_of(small_store, tmp_path / "runs", epochs=20)  # long enough for the other process to begin
    result = run_sweep(sweep, trials=5, jobs=2)
    assert result.finished == 5
    with open_study(sweep.folder, sweep.search) as study:
        trials = study.get_trials()
    assert [trial.state for trial in trials] == [TrialState.COMPLETE] * 5
    assert len({trial.user_attrs["worker"] for trial in trials}) == 2


@pytest.mark.parametrize("validates", [True, False])
def test_a_trial_is_judged_by_the_epoch_that_a_fit_would_keep(
    small_store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, validates: bool
) -> None:
    scores = iter([0.1, 0.9, 0.4])
    monkeypatch.setattr(magnet, "validator", lambda side, predict: lambda: next(scores))
    few = "validation.few=hold_out" if validates else "validation.few=none"  # a fifth of two training patients is none
    settings = config(small_store, tmp_path, "encoder.mode=frozen", "optim.epochs=3", few)
    outcome = Objective().train(settings, tmp_path, lambda epoch, score: None)
    assert (outcome.score, outcome.epoch) == ((0.9, 2) if validates else (0.4, 3))


def test_a_study_that_could_not_be_made_is_made_anew(
    small_store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sweep = sweep_of(small_store, tmp_path)

    def full(**_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(optuna, "create_study", full)
        with pytest.raises(OSError, match="No space left"), open_study(sweep.folder, sweep.search):
            pass
    assert not [path for path in sweep.folder.iterdir() if "study.db" in path.name]
    with open_study(sweep.folder, sweep.search) as study:
        assert study.trials == []


def test_a_signal_while_the_study_is_told_leaves_a_finished_trial_and_no_scratch(
    small_store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sweep = sweep_of(small_store, tmp_path / "runs")
    tell = optuna.Study.tell

    def interrupted(study: optuna.Study, trial: optuna.Trial, *values: float, **options: object) -> None:
        tell(study, trial, *values, **options)  # type: ignore[arg-type]
        if values:
            raise KeyboardInterrupt

    with open_study(sweep.folder, sweep.search) as study:
        with monkeypatch.context() as patched:
            patched.setattr(optuna.Study, "tell", interrupted)
            with pytest.raises(KeyboardInterrupt):
                told(study, sweep, Curves([[0.1]]), total=1)
        assert [trial.state for trial in study.get_trials()] == [TrialState.COMPLETE]
        left = sweep.folder / "scratch" / "0"
        left.mkdir(parents=True)
        told(study, sweep, Curves([]), total=1)
        assert not left.exists()

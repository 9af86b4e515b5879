import multiprocessing
import os
import signal
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import optuna
import pytest
from optuna.trial import TrialState

from cache.store import Store
from magnet_core.engine.local import HERE, LocalEngine
from magnet_core.engine.ray_cluster import RayEngine
from magnet_core.engine.tasks import Task
from magnet_core.errors import MagnetError
from magnet_core.interrupt import StopRequest
from tests.nodes import two_nodes
from tests.train.setting import config
from tests.train.sweep.setting import sweep_of
from train.data import training_side
from train.data.fold_sides import open_fold
from train.data.tissue_blocks import TissueBlocks
from train.settings.fit import FitConfig
from train.sweep import trials
from train.sweep.config import Sweep
from train.sweep.objective import Leg, hold_out_some, train_leg
from train.sweep.run import refit_config, run_sweep
from train.sweep.study import alone, draw, open_study, scratch_folder, take_up
from train.sweep.trials import work
from train.systems import magnet

Curves = list[list[float]]  # the scores of each trial, epoch by epoch


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """A sweep whose trials, in the place of training, have given scores."""

    def tell(study: optuna.Study, sweep: Sweep, curves: Curves, *, total: int, engine: LocalEngine = HERE) -> None:
        waiting, of_trial = iter(curves), dict[str, list[float]]()

        def leg(config: FitConfig, folder: Path, epochs: int) -> Leg:
            scores = of_trial[folder.name] if folder.name in of_trial else next(waiting)
            of_trial[folder.name] = scores
            return Leg(scores[:epochs], scores.index(max(scores)) + 1 if epochs >= len(scores) else 0)

        monkeypatch.setattr(trials, "train_leg", leg)
        work(study, sweep, engine, total=total)

    return tell


def draw_and_be_killed(sweep: Sweep) -> None:
    with open_study(sweep.folder, sweep.search) as study:
        drawn = draw(study, sweep, 0)
        scratch_folder(sweep, drawn.trial.number).mkdir(parents=True)
        (scratch_folder(sweep, drawn.trial.number) / "checkpoint.pt").write_text("of the first")
        os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.parametrize("pruner", ["median", "asha"])
def test_a_trial_that_lags_is_pruned_and_a_leading_one_is_not(
    small_store: Store, tmp_path: Path, pruner: str, told: Callable[..., None]
) -> None:
    search = f'pruner = "{pruner}"\nreduction = 2'
    sweep = sweep_of(small_store, tmp_path / "runs", search=search, epochs=4)
    good, bad = [0.2, 0.3, 0.4, 0.5], [0.1, 0.1, 0.1, 0.1]
    with open_study(sweep.folder, sweep.search) as study:
        told(study, sweep, [good, good, good, bad, [0.3, 0.4, 0.6, 0.5]], total=5)
        trials = study.get_trials()
    assert [trial.state for trial in trials] == [TrialState.COMPLETE] * 3 + [TrialState.PRUNED, TrialState.COMPLETE]
    assert len(trials[3].intermediate_values) == 1
    assert trials[4].value == 0.6
    assert trials[4].user_attrs["kept_epoch"] == 3


def test_a_killed_command_s_trial_goes_on_under_a_new_number(
    small_store: Store, tmp_path: Path, told: Callable[..., None]
) -> None:
    sweep = sweep_of(small_store, tmp_path / "runs")
    process = multiprocessing.get_context("spawn").Process(target=draw_and_be_killed, args=(sweep,))
    process.start()
    process.join(60)
    assert process.exitcode == -signal.SIGKILL
    with open_study(sweep.folder, sweep.search) as study:
        (killed,) = study.get_trials()
        assert killed.state == TrialState.RUNNING
        take_up(study, sweep)
        take_up(study, sweep)  # killed again before it was drawn
        assert [trial.state for trial in study.get_trials()] == [TrialState.FAIL, TrialState.WAITING]
        drawn = draw(study, sweep, 0)
        assert drawn.values == killed.params
        assert (scratch_folder(sweep, 1) / "checkpoint.pt").read_text() == "of the first"
        assert not scratch_folder(sweep, 0).exists()
        told(study, sweep, [[0.1], [0.2]], total=2)
        trials = study.get_trials()
    states = [TrialState.FAIL, TrialState.FAIL, TrialState.COMPLETE, TrialState.COMPLETE]
    assert [trial.state for trial in trials] == states
    assert [trial.params for trial in trials[:3]] == [killed.params] * 3
    assert list((sweep.folder / "scratch").iterdir()) == []


def test_a_signal_that_a_training_took_at_its_end_stops_the_sweep(
    small_store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sweep, before = sweep_of(small_store, tmp_path / "runs"), signal.getsignal(signal.SIGTERM)

    def deaf(*_: object) -> Leg:
        with StopRequest():
            os.kill(os.getpid(), signal.SIGTERM)  # when no step is left
        return Leg([0.1], 1)

    monkeypatch.setattr(trials, "train_leg", deaf)
    with open_study(sweep.folder, sweep.search) as study:
        with pytest.raises(KeyboardInterrupt):
            work(study, sweep, HERE, total=2)
        assert [trial.state for trial in study.get_trials()] == [TrialState.RUNNING]
    assert signal.getsignal(signal.SIGTERM) == before


def test_a_signal_amid_optunas_work_is_heard_after_it(
    small_store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, told: Callable[..., None]
) -> None:
    sweep, tell = sweep_of(small_store, tmp_path / "runs"), optuna.Study.tell

    def with_signal(*arguments: object, **options: object) -> None:
        signal.raise_signal(signal.SIGINT)  # which would be lost in a destructor there
        tell(*arguments, **options)  # type: ignore[arg-type]

    with open_study(sweep.folder, sweep.search) as study:
        with monkeypatch.context() as patched:
            patched.setattr(optuna.Study, "tell", with_signal)
            with pytest.raises(KeyboardInterrupt):
                told(study, sweep, [[0.1], [0.2]], total=2)
        assert [trial.state for trial in study.get_trials()] == [TrialState.COMPLETE]


def test_a_sweep_that_another_command_is_at_is_one_line(small_store: Store, tmp_path: Path) -> None:
    sweep = sweep_of(small_store, tmp_path / "runs")
    with (
        alone(sweep),
        pytest.raises(MagnetError, match=r"expected a sweep that no other command is at, found .*process"),
    ):
        run_sweep(sweep, trials=1)


def test_as_many_trials_are_under_way_as_there_are_places(small_store: Store, tmp_path: Path) -> None:
    sweep, most, legs = sweep_of(small_store, tmp_path / "runs", epochs=2), 0, deque[Task[Leg]]()

    class Places:
        """An engine of three places, the first of whose tasks ends last."""

        slots = 3

        @contextmanager
        def open(self, *, lost: object, far: object) -> Iterator["Places"]:
            yield self

        def submit(self, task: Task[Leg]) -> None:
            nonlocal most
            legs.append(task)
            most = max(most, len(legs))

        def wait(self) -> tuple[Task[Leg], Leg]:
            task = legs.pop()
            return task, Leg([0.1, 0.2][: task.arguments[2]], 2 if task.arguments[2] == 2 else 0)

    with open_study(sweep.folder, sweep.search) as study:
        work(study, sweep, Places(), total=7)  # type: ignore[arg-type]
        assert [trial.state for trial in study.get_trials()] == [TrialState.COMPLETE] * 7
    assert most == 3


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


def test_a_refit_is_tested_and_kept(small_store: Store, tmp_path: Path, told: Callable[..., None]) -> None:
    sweep = sweep_of(small_store, tmp_path / "runs", settings="baselines = false")
    first = run_sweep(sweep, trials=1, refit=True)
    assert first.refit is not None
    assert set(first.refit.systems) == {"magnet"}
    again = run_sweep(sweep, trials=1, refit=True).refit
    assert again is not None
    assert again.text == first.refit.text
    with open_study(sweep.folder, sweep.search) as study:
        told(study, sweep, [[0.99]], total=2)
    other = run_sweep(sweep, trials=2, refit=True).refit
    assert other is not None
    assert other.folder == first.refit.folder
    assert other.cell().folder != first.refit.cell().folder


@pytest.mark.slow
def test_two_nodes_run_a_sweep(small_store: Store, tmp_path: Path) -> None:
    search = 'pruner = "median"\nsampler = "random"'  # legs of an epoch; so few trials are not pruned
    with two_nodes() as nodes:
        sweep = sweep_of(small_store, tmp_path / "runs", search=search, epochs=2)
        result = run_sweep(sweep, trials=3, engine=RayEngine(nodes.address))
    alone = run_sweep(sweep_of(small_store, tmp_path / "alone", search=search, epochs=2), trials=3)
    assert (result.finished, result.value, result.values) == (3, alone.value, alone.values)


def test_two_processes_run_a_sweep(small_store: Store, tmp_path: Path) -> None:
    sweep = sweep_of(small_store, tmp_path / "runs", search='pruner = "none"\nsampler = "random"')
    result = run_sweep(sweep, trials=4, engine=LocalEngine(2))
    alone = run_sweep(sweep_of(small_store, tmp_path / "alone", search='pruner = "none"\nsampler = "random"'), trials=4)
    assert (result.finished, result.value, result.values) == (4, alone.value, alone.values)


@pytest.mark.parametrize("validates", [True, False])
def test_a_trial_is_judged_by_the_epoch_that_a_fit_would_keep(
    small_store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, validates: bool
) -> None:
    scores = iter([0.1, 0.9, 0.4])
    monkeypatch.setattr(magnet, "validator", lambda side, predict: lambda: next(scores))
    few = "validation.few=hold_out" if validates else "validation.few=none"  # a fifth of two training patients is none
    settings = config(small_store, tmp_path, "encoder.mode=frozen", "optim.epochs=3", few)
    legs = [train_leg(settings, tmp_path, epochs) for epochs in (1, 2, 3)]
    assert [leg.scores for leg in legs] == [[0.1], [0.1, 0.9], [0.1, 0.9, 0.4]]
    assert [leg.kept for leg in legs] == [0, 0, 2 if validates else 3]


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
    small_store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, told: Callable[..., None]
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
                told(study, sweep, [[0.1]], total=1)
        assert [trial.state for trial in study.get_trials()] == [TrialState.COMPLETE]
        left = sweep.folder / "scratch" / "0"
        left.mkdir(parents=True)
        told(study, sweep, [], total=1)
        assert not left.exists()

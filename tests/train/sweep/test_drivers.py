"""Several commands share a sweep: each trial is one command's; one that is killed leaves its trials to the others."""

import multiprocessing
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from unittest.mock import patch

import optuna
import polars as pl
import pytest
from optuna.trial import TrialState

from cache.lock import is_held
from cache.store import Store
from magnet_core.engine.local import HERE
from magnet_core.errors import MagnetError
from tests.train.sweep.setting import sweep_of
from train.places import read_result
from train.report.page import write_report
from train.settings.fit import FitConfig
from train.sweep import trials
from train.sweep.config import Sweep
from train.sweep.drivers import SIGNED, Driver, driving, lock_path
from train.sweep.objective import Leg
from train.sweep.run import run_sweep
from train.sweep.storage import open_journal, parse_storage
from train.sweep.study import LEG, Shared, draw, locked, open_study, scratch_folder, take_up
from train.sweep.trials import goes_on, work

LEGS = 'pruner = "median"\nsampler = "random"'  # a leg an epoch
DEADLINE_S = 500


def shared_of(sweep: Sweep) -> Shared:
    return Shared(parse_storage(str(sweep.folder / "study.journal")), "shared")


def leg_of_two(config: FitConfig, folder: Path, epochs: int, *, meet: Path, dies: bool) -> Leg:
    """In the place of training: epochs that the folder lacks are noted, the first when two commands are at them."""
    folder.mkdir(parents=True, exist_ok=True)
    (meet / f"{os.getpid()}.here").touch()
    deadline = time.monotonic() + DEADLINE_S
    while len(list(meet.glob("*.here"))) < 2 and time.monotonic() < deadline:
        time.sleep(0.05)
    checkpoint = folder / "checkpoint.txt"
    done = len(checkpoint.read_text()) if checkpoint.exists() else 0
    if dies and done == 2:
        os.kill(os.getpid(), signal.SIGKILL)
    for epoch in range(done, epochs):
        with (meet / "epochs.txt").open("a") as log:
            log.write(f"{os.getpid()} {folder.name} {epoch}\n")
        checkpoint.write_text("." * (epoch + 1))
    return Leg([0.5] * epochs, epochs if epochs == config.optim.epochs else 0)


def drive(sweep: Sweep, total: int, meet: Path, dies: bool = False) -> None:
    """Be one of the commands at a sweep."""
    shared, leg = shared_of(sweep), partial(leg_of_two, meet=meet, dies=dies)
    with (
        patch.multiple(trials, train_leg=leg, WAIT_SECONDS=0.1),
        driving(sweep, shared) as driver,
        open_study(sweep.folder, sweep.search, shared) as study,
    ):
        work(study, sweep, HERE, total=total, driver=driver)


@pytest.fixture
def two(tmp_path: Path) -> Iterator[Callable[..., list[int | None]]]:
    """Two processes at a sweep; their exit codes."""
    context, begun = multiprocessing.get_context("spawn"), list[multiprocessing.process.BaseProcess]()

    def run(sweep: Sweep, total: int, *, first_dies: bool) -> list[int | None]:
        sweep.folder.mkdir(parents=True)
        begun.extend(context.Process(target=drive, args=(sweep, total, tmp_path, dies)) for dies in (first_dies, False))
        for process in begun:
            process.start()
        for process in begun:
            process.join(DEADLINE_S)
        return [process.exitcode for process in begun]

    yield run
    for process in begun:
        if process.is_alive():
            process.kill()


def epochs_of(folder: Path) -> list[tuple[int, int, int]]:
    """Process, trial and epoch, in the order of work."""
    lines = (folder / "epochs.txt").read_text().splitlines()
    return [(int(pid), int(trial), int(epoch)) for pid, trial, epoch in map(str.split, lines)]


def trials_of(sweep: Sweep) -> list[optuna.trial.FrozenTrial]:
    with open_study(sweep.folder, sweep.search, shared_of(sweep)) as study:
        return study.get_trials()


def test_two_commands_share_the_trials(
    small_store: Store, tmp_path: Path, two: Callable[..., list[int | None]]
) -> None:
    sweep = sweep_of(small_store, tmp_path / "runs", search=LEGS)
    assert two(sweep, 6, first_dies=False) == [0, 0]
    assert [trial.state for trial in trials_of(sweep)] == [TrialState.COMPLETE] * 6
    done = epochs_of(tmp_path)
    assert sorted((trial, epoch) for _, trial, epoch in done) == [(n, epoch) for n in range(6) for epoch in range(2)]
    assert len({pid for pid, _, _ in done}) == 2
    assert len({(pid, trial) for pid, trial, _ in done}) == 6
    assert not list(sweep.folder.glob("*.lock"))
    assert not list((sweep.folder / "scratch").iterdir())


@pytest.mark.slow
def test_the_trial_of_a_killed_command_goes_on_in_the_other(
    small_store: Store, tmp_path: Path, two: Callable[..., list[int | None]]
) -> None:
    sweep = sweep_of(small_store, tmp_path / "runs", search=LEGS, epochs=4)
    assert two(sweep, 3, first_dies=True) == [-signal.SIGKILL, 0]
    seen = trials_of(sweep)
    (dropped,) = (trial for trial in seen if trial.state == TrialState.FAIL)
    assert [trial.state for trial in seen if trial is not dropped] == [TrialState.COMPLETE] * 3
    (again,) = (trial for trial in seen if trial is not dropped and trial.params == dropped.params)
    steps = [(trial, epoch) for _, trial, epoch in epochs_of(tmp_path) if trial in (dropped.number, again.number)]
    assert steps == [(dropped.number, 0), (dropped.number, 1), (again.number, 2), (again.number, 3)]
    with driving(sweep, shared_of(sweep)) as driver:  # which removes what the killed one has left
        assert list(sweep.folder.glob("driver-*")) == [lock_path(sweep.folder, driver.name)]


def test_whose_a_trial_is(small_store: Store, tmp_path: Path) -> None:
    sweep = sweep_of(small_store, tmp_path / "runs")
    shared = shared_of(sweep)
    with open_study(sweep.folder, sweep.search, shared) as study, driving(sweep, shared) as mine:
        with driving(sweep, shared) as other:
            for driver in (mine, other):
                driver.sign(draw(study, sweep, 0).trial)
            draw(study, sweep, 2)  # by one that was killed before it signed
            assert [trial.user_attrs.get(SIGNED) for trial in study.get_trials()] == [mine.name, other.name, None]
            assert mine.of_others(study.get_trials()) == {1}
            assert other.of_others(study.get_trials()) == {0}
        assert not is_held(lock_path(sweep.folder, other.name))
        assert mine.of_others(study.get_trials()) == set()
        scratch_folder(sweep, 1).mkdir(parents=True)
        with locked(scratch_folder(sweep, 1) / LEG):  # by a process that its command does not outlive
            assert mine.of_others(study.get_trials()) == {1}
            take_up(study, sweep, at_work={0, 1})
            assert scratch_folder(sweep, 1).exists()
        assert [trial.state.name for trial in study.get_trials()] == ["RUNNING", "RUNNING", "FAIL", "WAITING"]
        assert Driver(sweep.folder).of_others(study.get_trials()) == set()


def test_a_trial_that_was_taken_from_a_command_is_one_line(small_store: Store, tmp_path: Path) -> None:
    sweep = sweep_of(small_store, tmp_path / "runs")
    with open_study(sweep.folder, sweep.search, shared_of(sweep)) as study:
        drawn = draw(study, sweep, 0)
        take_up(study, sweep)
        with pytest.raises(MagnetError, match="trial 0: expected a trial of this command alone"):
            goes_on(study, sweep, drawn.trial, Leg([0.1], 1))


def test_a_trial_whose_command_was_killed_while_it_was_drawn_again_keeps_its_values_and_checkpoint(
    small_store: Store, tmp_path: Path
) -> None:
    sweep = sweep_of(small_store, tmp_path / "runs")
    with open_study(sweep.folder, sweep.search, shared_of(sweep)) as study:
        first = draw(study, sweep, 0)
        scratch_folder(sweep, 0).mkdir(parents=True)
        take_up(study, sweep)
        study.ask()  # and nothing more
        take_up(study, sweep)
        again = draw(study, sweep, 0)
    assert again.values == first.values
    assert scratch_folder(sweep, again.trial.number).is_dir()


def test_a_sweep_with_a_storage_ends_goes_on_and_is_shown(small_store: Store, tmp_path: Path) -> None:
    sweep, alone = sweep_of(small_store, tmp_path / "runs"), sweep_of(small_store, tmp_path / "alone")
    path = tmp_path / "study.journal"
    run_sweep(sweep, trials=1, storage=parse_storage(str(path)))
    result = run_sweep(sweep, trials=2, storage=parse_storage(str(path)))
    expected = run_sweep(alone, trials=2)
    assert (result.value, result.values) == (expected.value, expected.values)
    record = read_result(sweep.folder / "sweep.json")
    assert record["storage"]["place"] == str(path)
    assert "storage" not in read_result(alone.folder / "sweep.json")
    assert not (sweep.folder / "study.db").exists()
    assert write_report([sweep.folder], tmp_path / "page.html").read_text().count("data:image/png;base64,") == 2

    path.unlink()
    again = run_sweep(sweep, trials=2, storage=parse_storage(str(path)))
    assert (again.best, again.value) == (result.best, result.value)
    assert optuna.get_all_study_names(open_journal(path)) == [record["storage"]["study"]]


def test_a_sweep_with_another_storage_is_one_line(small_store: Store, tmp_path: Path) -> None:
    sweep = sweep_of(small_store, tmp_path / "runs")
    run_sweep(sweep, trials=1, storage=parse_storage(str(sweep.folder / "study.journal")))
    begun = r"sweep.json: expected --storage study.journal, with which the sweep was begun, found "
    with pytest.raises(MagnetError, match=begun + r"no --storage; give it as it was begun, or give another --name"):
        run_sweep(sweep, trials=2)
    with pytest.raises(MagnetError, match=begun + r"--storage .*other.journal"):
        run_sweep(sweep, trials=2, storage=parse_storage(str(tmp_path / "other.journal")))
    alone = sweep_of(small_store, tmp_path / "alone")
    run_sweep(alone, trials=1)
    with pytest.raises(MagnetError, match=r"expected no --storage, with which the sweep was begun, found --storage"):
        run_sweep(alone, trials=2, storage=parse_storage(str(tmp_path / "other.journal")))


def command(sweep: Sweep, trials: int) -> subprocess.Popen[str]:
    options = ["--store", str(sweep.base.data.store), "--runs", str(sweep.base.runs), "--device", "cpu"]
    options += ["--backbone", sweep.base.data.backbone, "--storage", str(sweep.folder / "study.journal")]
    line = [sys.executable, "-m", "train", "sweep", sweep.source, "--trials", str(trials), *options]
    return subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


@pytest.mark.slow
@pytest.mark.parametrize("killed", [False, True])
def test_two_commands_end_a_sweep(small_store: Store, tmp_path: Path, killed: bool) -> None:
    sweep = sweep_of(small_store, tmp_path / "runs", search=LEGS, epochs=12 if killed else 2)
    total = 3 if killed else 6  # of so few none is pruned
    journal = sweep.folder / "study.journal"
    with command(sweep, total) as first:
        if killed:
            name, deadline = "", time.monotonic() + DEADLINE_S
            while not name and time.monotonic() < deadline:
                time.sleep(0.05)
                seen = open_journal(journal).get_all_trials(0) if journal.exists() and journal.stat().st_size else []
                name = next((trial.user_attrs[SIGNED] for trial in seen if len(trial.intermediate_values) > 1), "")
            first.kill()
        with command(sweep, total) as second:
            _, said = second.communicate(timeout=DEADLINE_S)
        _, said_before = first.communicate(timeout=DEADLINE_S)
    assert second.returncode == 0, said
    assert first.returncode == (-signal.SIGKILL if killed else 0), said_before
    table = pl.read_csv(sweep.folder / "trials.csv")
    counted = table.filter(pl.col("ended") != "dropped")
    assert counted.height == total
    assert set(counted["ended"]) <= {"whole", "pruned"}
    assert counted.select("optim.lr", "model.rounds").n_unique() == total
    assert "best.toml" in read_result(sweep.folder / "sweep.json")["files"]
    assert (sweep.folder / "report.html").is_file()
    assert table.height == total + killed
    if killed:  # its trial's second leg began where the first had ended, in the first command alone
        starts = re.findall(r"going on after step (\d+)", said)
        from_scratch = [step for step in starts if int(step) == min(map(int, starts))]
        assert len(from_scratch) == total - 1

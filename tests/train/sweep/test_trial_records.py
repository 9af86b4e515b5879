"""What a study says of its trials is compared with their records, and a study that is lost is made anew from them."""

import sqlite3
from contextlib import closing
from pathlib import Path

import numpy as np
import optuna
import pytest

from cache.store import Store
from magnet_core.engine.local import HERE
from magnet_core.errors import MagnetError
from tests.train.sweep.setting import sweep_of
from train.report.page import write_report
from train.settings.fit import FitConfig
from train.sweep import trials
from train.sweep.config import Sweep
from train.sweep.objective import Benches, Leg
from train.sweep.record import check_record, write_results
from train.sweep.study import ANEW, DATABASE, open_study
from train.sweep.trial_records import FOLDER, check_trials, restore
from train.sweep.trials import work

CURVES: list[list[float]] = [[0.2, 0.3], [0.1, 0.4], [0.0, 0.0], [0.3, 0.2]]


def scored(config: FitConfig, folder: Path, epochs: int) -> Leg:
    """In the place of training: the trial's scores, epoch by epoch; one that is 0 diverges."""
    scores = CURVES[int(folder.name)]
    if not max(scores):
        return Leg(scores, refused="validation: expected a score, found nan; lower optim.lr")
    return Leg(scores, scores.index(max(scores)) + 1)


@pytest.fixture
def sweep(small_store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Sweep:
    """A sweep of four trials, the third of which was refused."""
    sweep = sweep_of(small_store, tmp_path / "runs")
    monkeypatch.setattr(trials, "train_leg", scored)
    check_record(sweep, Benches().bench(sweep.base))
    with open_study(sweep.folder, sweep.search) as study:
        work(study, sweep, HERE, total=4)
        write_results(study, sweep)
    return sweep


def change(sweep: Sweep, statement: str) -> None:
    """Change the study as a flipped bit may, which SQLite does not notice."""
    with closing(sqlite3.connect(sweep.folder / DATABASE)) as study:
        study.execute(statement)
        study.commit()


def check(sweep: Sweep) -> None:
    with open_study(sweep.folder, sweep.search) as study:
        check_trials(study, sweep.folder)


def test_each_trial_leaves_a_record_which_agrees_with_the_study(sweep: Sweep) -> None:
    assert sorted(path.name for path in (sweep.folder / FOLDER).iterdir()) == [f"{n}.json" for n in range(4)]
    check(sweep)


@pytest.mark.parametrize(
    ("statement", "says"),
    [
        (
            "UPDATE trial_values SET value = 0.9 WHERE trial_id = 1",
            r"trial 0: expected value 0.3, as trials/0.json",
        ),
        ("UPDATE trial_params SET param_value = 0.002 WHERE param_name = 'optim.lr'", r"expected params {'optim.lr': "),
        ("UPDATE trials SET state = 'PRUNED' WHERE trial_id = 2", "trial 1: expected ended whole, .*found pruned"),
        ("UPDATE trial_intermediate_values SET intermediate_value = 5", "expected scores"),
        (
            "DELETE FROM trials WHERE number = 3",
            "trial 3: expected its trial 3, as .* found 3 trials",
        ),
    ],
)
def test_a_study_that_says_something_else_is_one_line(statement: str, says: str, sweep: Sweep) -> None:
    change(sweep, statement)
    with pytest.raises(MagnetError, match=says) as told:
        check(sweep)
    assert str(told.value).endswith(ANEW)
    if "DELETE" not in statement:
        with pytest.raises(MagnetError, match=says):
            write_report([sweep.folder], sweep.folder / "report.html")


def test_a_record_that_is_damaged_or_lost_is_one_line(sweep: Sweep) -> None:
    path = sweep.folder / FOLDER / "1.json"
    content = path.read_text()
    path.write_text(content.replace("0.4", "0.5"))
    with pytest.raises(MagnetError, match=r"1\.json: expected the record of a trial as it was written"):
        check(sweep)
    path.unlink()
    with pytest.raises(MagnetError, match=r"1\.json: expected the record of a trial, found No such file"):
        check(sweep)


def test_a_study_that_is_lost_is_made_anew_from_the_records(sweep: Sweep) -> None:
    (sweep.folder / FOLDER / "1.json").unlink()  # as of a trial that was stopped
    with open_study(sweep.folder, sweep.search) as study:
        before = study.get_trials()
    (sweep.folder / DATABASE).unlink()
    with open_study(sweep.folder, sweep.search) as study:
        assert restore(study, sweep) == 3
        assert restore(study, sweep) == 0
        check_trials(study, sweep.folder)
        after = study.get_trials()
    assert [trial.state.name for trial in after] == ["COMPLETE", "FAIL", "PRUNED", "COMPLETE"]
    for one, other in zip(before, after, strict=True):
        if other.state != optuna.trial.TrialState.FAIL:
            for name in ("number", "value", "params", "distributions", "intermediate_values"):
                assert getattr(one, name) == getattr(other, name)


def test_trials_of_before_have_no_record_and_are_taken_as_they_are(sweep: Sweep) -> None:
    change(sweep, "DELETE FROM trial_user_attributes WHERE key = 'recorded'")
    for path in (sweep.folder / FOLDER).iterdir():
        path.unlink()
    with open_study(sweep.folder, sweep.search) as study:
        check_trials(study, sweep.folder)
        assert not any("recorded" in trial.user_attrs for trial in study.get_trials())


def test_a_table_of_trials_that_was_changed_is_told_of_and_written_anew(sweep: Sweep) -> None:
    table = sweep.folder / "trials.csv"
    table.write_text(table.read_text().replace("0.4", "0.8"))
    with pytest.raises(MagnetError, match=r"trials.csv: expected the bytes that were written.*train sweep"):
        write_report([sweep.folder], sweep.folder / "report.html")
    with open_study(sweep.folder, sweep.search) as study:
        write_results(study, sweep)
    write_report([sweep.folder], sweep.folder / "report.html")


def test_a_flipped_bit_of_a_study_is_never_another_number_without_a_word(sweep: Sweep) -> None:
    path = sweep.folder / DATABASE
    content, told = path.read_bytes(), 0
    with open_study(sweep.folder, sweep.search) as study:
        before = facts(study)
    for place in [*range(0, 100, 25), *np.flatnonzero(np.frombuffer(content, np.uint8))[::1500]]:
        path.write_bytes(content[:place] + bytes([content[place] ^ 4]) + content[place + 1 :])
        try:
            with open_study(sweep.folder, sweep.search) as study:
                check_trials(study, sweep.folder)
                assert facts(study) == before
        except MagnetError:
            told += 1
    assert told


def facts(study: optuna.Study) -> list[object]:
    return [(trial.number, trial.state, trial.value, trial.params) for trial in study.get_trials()]

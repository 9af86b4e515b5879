"""A record of each trial beside the study: what was drawn and what came out, in `trials/NUMBER.json`, with a checksum.

In: a study, the folder of its sweep. Out: records, written before the study is told how a trial ended; what differs
between the two is one line. SQLite finds damage of its pages' structure alone, not of the numbers in them: the record
holds, and a study that is lost is made anew from the records. Trials of before have none, and are taken as they are.
"""

from collections.abc import Iterator, Mapping
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import optuna
from optuna.trial import FixedTrial, FrozenTrial, TrialState

from magnet_core.errors import MagnetError
from magnet_core.files import plain_json
from magnet_core.sealed import read_sealed, write_sealed
from train.sweep.config import Sweep
from train.sweep.space import Dimension
from train.sweep.study import ANEW, DATABASE, DRAWING, KEPT_EPOCH, REFUSED, Shared, finished, locked, whole

FOLDER, RECORDED = "trials", "recorded"  # the latter is what a trial says of itself
STATES = {"whole": TrialState.COMPLETE, "pruned": TrialState.PRUNED, "refused": TrialState.PRUNED}
KEYS = {"trial", "ended", "value", "params", "scores", KEPT_EPOCH, REFUSED, "seconds"}


def ending(trial: FrozenTrial) -> str:
    """How a trial ended, in a word."""
    if REFUSED in trial.user_attrs:
        return "refused"
    words = {TrialState.COMPLETE: "whole", TrialState.PRUNED: "pruned", TrialState.FAIL: "dropped"}
    return words.get(trial.state, "under way")


def record_path(folder: Path, number: int) -> Path:
    """Where the record of a trial lies."""
    return folder / FOLDER / f"{number}.json"


def write_trial(study: optuna.Study, sweep: Sweep, trial: optuna.Trial, ended: str, value: float | None = None) -> None:
    """Write how a trial has ended that the study takes for one under way."""
    trial.set_user_attr(RECORDED, True)
    running = study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
    told = next(each for each in running if each.number == trial.number)
    assert told.datetime_start is not None
    seconds = (datetime.now() - told.datetime_start).total_seconds()  # Optuna's time has no zone
    record = {**_facts(told), "ended": ended, "value": value, "seconds": round(seconds, 2)}
    write_sealed(record_path(sweep.folder, trial.number), record)


def check_trials(study: optuna.Study, folder: Path, shared: Shared | None = None) -> None:
    """Compare what a study says of its trials with their records; the first difference is an error."""
    numbers = [number for number, _ in _records(folder)]  # first: a trial is drawn before it is recorded
    with whole(folder, shared):
        trials = study.get_trials(deepcopy=False)
    if lost := [number for number in numbers if number >= len(trials)]:
        raise _differs(folder, shared, lost[0], expected=f"its trial {lost[0]}", found=f"{len(trials)} trials")
    for trial in finished(trials):
        path = record_path(folder, trial.number)
        if not path.exists() and RECORDED not in trial.user_attrs:
            continue
        record = _read(path)
        value = trial.value if trial.state == TrialState.COMPLETE else None
        now = plain_json({**_facts(trial), "ended": ending(trial), "value": value})
        for name, said in now.items():
            if said != record[name]:
                raise _differs(folder, shared, trial.number, expected=f"{name} {record[name]}", found=str(said))


def restore(study: optuna.Study, sweep: Sweep) -> int:
    """Tell a study that is empty of the trials that are recorded, under their numbers; return how many there are."""
    with locked(sweep.folder / DRAWING):
        if study.get_trials(deepcopy=False):
            return 0
        return _tell_of_records(study, sweep.folder, sweep.space)


def study_of_records(folder: Path, space: Mapping[str, Dimension]) -> optuna.Study:
    """Make a study in memory of the trials that are recorded in a sweep's folder."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(direction="maximize")
    _tell_of_records(study, folder, space)
    return study


def _tell_of_records(study: optuna.Study, folder: Path, space: Mapping[str, Dimension]) -> int:
    records, num_told = sorted(_records(folder)), 0
    for number, path in records:
        for _ in range(num_told, number):
            study.add_trial(optuna.trial.create_trial(state=TrialState.FAIL))  # one that was stopped or killed
        study.add_trial(_trial(_read(path), space))
        num_told = number + 1
    return len(records)


def _facts(trial: FrozenTrial) -> dict[str, Any]:
    """What a trial has drawn and seen."""
    return {
        "trial": trial.number,
        "params": trial.params,
        "scores": {str(epoch): score for epoch, score in sorted(trial.intermediate_values.items())},
        KEPT_EPOCH: trial.user_attrs.get(KEPT_EPOCH),
        REFUSED: trial.user_attrs.get(REFUSED),
    }


def _trial(record: dict[str, Any], space: Mapping[str, Dimension]) -> FrozenTrial:
    """Make the trial that a record tells of."""
    drawn, state = FixedTrial(record["params"]), STATES[record["ended"]]
    for name, item in space.items():
        if name in record["params"]:
            item.suggest(drawn, name)
    scores = {int(epoch): float("nan") if score is None else score for epoch, score in record["scores"].items()}
    said = {name: record[name] for name in (KEPT_EPOCH, REFUSED) if record[name] is not None}
    value = scores[max(scores)] if state == TrialState.PRUNED and scores else record["value"]
    trial = optuna.trial.create_trial(
        state=state, value=value, params=drawn.params, distributions=drawn.distributions, intermediate_values=scores,
        user_attrs={**said, RECORDED: True},
    )  # fmt: skip
    assert trial.datetime_complete is not None
    trial.datetime_start = trial.datetime_complete - timedelta(seconds=record["seconds"])
    return trial


def _records(folder: Path) -> Iterator[tuple[int, Path]]:
    for path in (folder / FOLDER).glob("*.json"):
        if path.stem.isdecimal():
            yield int(path.stem), path


def _read(path: Path) -> dict[str, Any]:
    remedy = f"delete the folder of the sweep, {path.parent.parent}, or give another --name; then give it again"
    record = read_sealed(path, expected="the record of a trial", remedy=remedy)
    if record.keys() != KEYS:
        raise MagnetError(path, expected=", ".join(sorted(KEYS)), found=", ".join(record), remedy=remedy)
    return record


def _differs(folder: Path, shared: Shared | None, number: int, *, expected: str, found: str) -> MagnetError:
    return MagnetError(
        f"{folder / DATABASE if shared is None else shared.storage.place}, trial {number}",
        expected=f"{expected}, as {FOLDER}/{number}.json has it",
        found=found,
        remedy=ANEW if shared is None else shared.anew,
    )

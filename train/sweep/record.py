"""What a sweep's folder holds beside its study.

sweep.json  all that the sweep is, and the slides; one that goes on must be the same. With checksums of the other two,
            and where the study lies that several commands share
trials/     a record of each trial, see `train.sweep.trial_records`
trials.csv  every trial: how it ended, its value, epochs, seconds, and the settings that were searched
best.toml   the settings of the best trial, a recipe for `train fit`
"""

import json
import secrets
from typing import Any

import optuna
import polars as pl
import tomli_w
from optuna.trial import FrozenTrial, TrialState

from cache.store import package_versions
from magnet_core.checksums import FILES, file_checksums
from magnet_core.errors import MagnetError
from magnet_core.files import write_text
from magnet_core.sealed import write_sealed
from magnet_core.settings import differing, flat, nested
from train.places import SWEEP, read_result
from train.settings.fit import OUTPUT_NEUTRAL, FitConfig, as_recorded
from train.sweep.config import Sweep
from train.sweep.objective import Bench
from train.sweep.storage import OPTION, Storage
from train.sweep.study import DRAWING, KEPT_EPOCH, REFUSED, Shared, alone, locked
from train.sweep.trial_records import ending

TRIALS, BEST = "trials.csv", "best.toml"
STORAGE = "storage"  # of sweep.json
NOT_OF_A_RECIPE = ("name", "overwrite", "device")


def check_shared(sweep: Sweep, bench: Bench, storage: Storage) -> Shared:
    """As `check_record`, for one of several commands; return which study of the storage is the sweep's."""
    sweep.folder.mkdir(parents=True, exist_ok=True)
    with locked(sweep.folder / DRAWING), alone(sweep):
        check_record(sweep, bench, storage)
        return Shared(storage, read_result(sweep.folder / SWEEP)[STORAGE]["study"])


def check_record(sweep: Sweep, bench: Bench, storage: Storage | None = None) -> None:
    """Write what the sweep is, or compare it with what the folder says."""
    slides = {
        "learnt": [slide.slide_id for slide in bench.side.learnt.slides],
        "validation": [str(each) for each in bench.side.held_out],
    }
    now: dict[str, Any] = json.loads(json.dumps({**sweep.described(), "slides": slides}))
    path = sweep.folder / SWEEP
    if not path.exists():
        shared = {}
        if storage is not None:  # in a database there may be other sweeps of this name
            study = f"{sweep.folder.name}-{secrets.token_hex(4)}"
            shared = {STORAGE: {"place": storage.recorded(sweep.folder), "study": study}}
        write_sealed(path, {**now, **shared, "versions": package_versions()})
        return
    before = read_result(path, tuple(now))
    begun, given = before.get(STORAGE, {}).get("place"), storage and storage.recorded(sweep.folder)
    if begun != given:
        expected, found = (f"{OPTION} {place}" if place else f"no {OPTION}" for place in (begun, given))
        raise MagnetError(
            path,
            expected=f"{expected}, with which the sweep was begun",
            found=found,
            remedy="give it as it was begun, or give another --name",
        )
    searched = before["space"].keys() | now["space"].keys()
    neutral = {*OUTPUT_NEUTRAL, *searched}
    different = differing(as_recorded(before.pop("settings")), now.pop("settings"), neutral=neutral)
    different += differing({key: before[key] for key in now}, now)
    if different:
        raise MagnetError(
            path,
            expected="a sweep with this space, search and settings",
            found=f"one that differs in {', '.join(different)}",
            remedy="give another --name",
        )


def whole_trials(study: optuna.Study) -> list[FrozenTrial]:
    """Trials that were trained to their end, the best first."""
    trials = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    return sorted(trials, key=_value, reverse=True)


def write_results(study: optuna.Study, sweep: Sweep) -> None:
    """Write the table of trials, and the recipe of the best one if there is one; sweep.json keeps their checksums."""
    with locked(sweep.folder / DRAWING):  # of several processes of one sweep each writes them
        _write_results(study, sweep)


def _write_results(study: optuna.Study, sweep: Sweep) -> None:
    rows = [_row(trial, sweep) for trial in study.get_trials(deepcopy=False)]
    text = pl.DataFrame(rows, infer_schema_length=None, strict=False).write_csv()
    write_text(sweep.folder / TRIALS, text)
    names = [TRIALS]
    if best := whole_trials(study)[:1]:
        write_text(sweep.folder / BEST, recipe_text(sweep, best[0]))
        names.append(BEST)
    record = read_result(sweep.folder / SWEEP)
    write_sealed(sweep.folder / SWEEP, {**record, FILES: file_checksums(sweep.folder, names)})


def recipe_text(sweep: Sweep, trial: FrozenTrial) -> str:
    """Write a trial as a recipe: what it searched, and what else is not a default."""
    values, default = flat(sweep.config(trial.params).plain()), flat(FitConfig().plain())
    chosen = {
        name: value
        for name, value in values.items()
        if name in {"fold", *sweep.space} or (value != default[name] and name not in NOT_OF_A_RECIPE)
    }
    comments = (
        f"# Trial {trial.number} of sweep {sweep.folder.name}: PCC per gene {trial.value:.4f} on held-out slides,\n"
        f"# after epoch {trial.user_attrs.get(KEPT_EPOCH)}.\n"
        "# train fit --recipe best.toml  (--bins finetuned trains the bin encoder, too)\n"
    )
    return comments + tomli_w.dumps(nested(chosen, where="best.toml"))


def _value(trial: FrozenTrial) -> float:
    assert trial.value is not None
    return trial.value


def _row(trial: FrozenTrial, sweep: Sweep) -> dict[str, Any]:
    return {
        "trial": trial.number,
        "ended": ending(trial),
        "pcc_gene": None if REFUSED in trial.user_attrs else trial.value,
        "epochs": len(trial.intermediate_values),
        "kept_epoch": trial.user_attrs.get(KEPT_EPOCH),
        "seconds": trial.duration and round(trial.duration.total_seconds(), 2),
        **{name: trial.params.get(name) for name in sweep.space},
        "reason": trial.user_attrs.get(REFUSED),
    }

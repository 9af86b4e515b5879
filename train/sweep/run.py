"""A sweep on one page: from its settings to a study, a table, a recipe of the best trial and a report.

The same sweep given again goes on to the number of trials that is asked for; commands that are given at once, with a
storage, share that number. Nothing but training slides is looked at; only a refit, if one is asked for, is tested.
"""

from collections.abc import Sequence
from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import optuna

from magnet_core.console import Bar, notice, progress
from magnet_core.device import pick_device
from magnet_core.engine.local import HERE
from magnet_core.engine.tasks import Engine, Task
from magnet_core.engine.tasks import in_words as parts_in_words
from magnet_core.errors import MagnetError
from magnet_core.interrupt import StopRequest
from train.pipeline import TableResult, fit
from train.settings.fit import FitConfig
from train.sweep.config import Sweep
from train.sweep.drivers import Driver, driving
from train.sweep.objective import Bench, benches_of_process
from train.sweep.record import check_record, check_shared, whole_trials, write_results
from train.sweep.space import Value
from train.sweep.storage import Storage
from train.sweep.study import DATABASE, DRAWING, REFUSED, Shared, finished, locked, open_study
from train.sweep.trial_records import check_trials, ending, restore
from train.sweep.trials import work

REFIT, REFITTING = "refit", "refit.lock"


@dataclass(frozen=True)
class SweepResult:
    """Where a sweep lies, its best trial, and its refit where one was asked for."""

    folder: Path
    finished: int
    best: int
    value: float
    values: dict[str, Value]
    refit: TableResult | None = None


def run_sweep(
    sweep: Sweep, *, trials: int, engine: Engine = HERE, refit: bool = False, storage: Storage | None = None
) -> SweepResult:
    """Run or resume until `trials` are finished, and return the outcome; `storage` is that of several commands."""
    pick_device(sweep.base.device)  # one that is not there is no fault of a trial
    try:
        if storage is None:
            with driving(sweep, None) as driver:
                bench = benches_of_process().bench(sweep.base)
                check_record(sweep, bench)
                result = _run(sweep, bench, driver, trials=trials, engine=engine)
        else:
            bench = benches_of_process().bench(sweep.base)
            shared = check_shared(sweep, bench, storage)
            with driving(sweep, shared) as driver:
                result = _run(sweep, bench, driver, trials=trials, engine=engine, shared=shared)
    finally:
        benches_of_process.cache_clear()
    if not refit:
        return result
    with nullcontext() if storage is None else locked(sweep.folder / REFITTING):
        return replace(result, refit=refit_best(sweep, result.values))


def _run(
    sweep: Sweep, bench: Bench, driver: Driver, *, trials: int, engine: Engine, shared: Shared | None = None
) -> SweepResult:
    notice(
        f"validation: {', '.join(map(str, bench.side.held_out))}; "
        f"learnt from: {', '.join(slide.slide_id for slide in bench.side.learnt.slides)}"
    )
    with ExitStack() as stack:
        with StopRequest():
            study = stack.enter_context(open_study(sweep.folder, sweep.search, shared))
            if restored := restore(study, sweep):
                lost = sweep.folder / DATABASE if shared is None else f"{shared.study} in {shared.storage.place}"
                notice(f"{lost} was lost: made anew from the records of {restored} trials")
            check_trials(study, sweep.folder, shared)
            num_finished = len(finished(study.get_trials(deepcopy=False)))
        if num_finished:
            notice(f"{num_finished} of {trials} trials are there")
        try:
            with progress(total=trials, initial=num_finished, desc="sweep", unit="trial") as bar:
                if num_finished < trials:
                    tell = Teller(study, bar)
                    work(study, sweep, engine, total=trials, driver=driver, on_end=tell.ended, far=tell.under_way)
        finally:
            with StopRequest():
                write_results(study, sweep)
        return summarise(study, sweep)


def at_rest(sweep: Sweep, storage: Storage | None) -> AbstractContextManager[None]:
    """While the page is written: other commands do not replace the tables of the sweep that it is made of."""
    return nullcontext() if storage is None else locked(sweep.folder / DRAWING)


class Teller:
    """Says which trials have finished, moves the bar, and shows the best behind it, and how far those under way are."""

    def __init__(self, study: optuna.Study, bar: Bar) -> None:
        self._study, self._bar, self._best = study, bar, ""
        self._told = {trial.number for trial in finished(study.get_trials(deepcopy=False))}

    def ended(self) -> None:
        """Tell of trials that have finished since this was last called."""
        trials = finished(self._study.get_trials(deepcopy=False))
        new = [trial for trial in trials if trial.number not in self._told]
        for trial in new:
            self._told.add(trial.number)
            value = trial.user_attrs.get(REFUSED) or f"PCC per gene {trial.value:.4f}"
            notice(f"trial {trial.number} {ending(trial)}: {value}; {in_words(trial.params)}")
        if best := whole_trials(self._study)[:1]:
            self._best = f"best {best[0].value:.4f}, trial {best[0].number}"
            self._bar.set_postfix_str(self._best, refresh=False)
        self._bar.update(len(new))

    def under_way(self, tasks: Sequence[tuple[Task[Any], float]]) -> None:
        """Show how far tasks are."""
        self._bar.set_postfix_str("; ".join(filter(None, (self._best, parts_in_words(tasks)))))
        self._bar.update(0)


def in_words(values: dict[str, Value]) -> str:
    """Name the values of a trial, on one line."""
    shown = ((name, f"{value:.4g}" if isinstance(value, float) else value) for name, value in values.items())
    return ", ".join(f"{name}={value}" for name, value in shown)


def summarise(study: optuna.Study, sweep: Sweep) -> SweepResult:
    """Name the best trial; no whole trial is an error."""
    done = finished(study.get_trials(deepcopy=False))
    whole = whole_trials(study)
    if not whole:
        reasons = [trial.user_attrs[REFUSED] for trial in done if REFUSED in trial.user_attrs]
        raise MagnetError(
            sweep.folder,
            expected="a trial that was trained to its end",
            found=f"none of {len(done)}" + (f", the first refused by: {reasons[0]}" if reasons else ""),
            remedy="change the space and give another --name, or ask for more --trials",
        )
    best = whole[0]
    assert best.value is not None
    return SweepResult(sweep.folder, len(done), best.number, best.value, best.params)


def refit_best(sweep: Sweep, values: dict[str, Value]) -> TableResult:
    """Fit the best settings with the bin encoder trained too, and test them; the table of a former best is replaced."""
    return fit(refit_config(sweep, values))


def refit_config(sweep: Sweep, values: dict[str, Value]) -> FitConfig:
    """The best settings as a run in the sweep's folder; an encoder that was frozen for speed is trained in full."""
    config = sweep.config(values)
    encoder = config.encoder.changed(mode="full") if config.encoder.mode == "frozen" else config.encoder
    return config.changed(name=f"{config.run_name}/{REFIT}", encoder=encoder, overwrite=True)

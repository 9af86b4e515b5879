"""A sweep on one page: from its settings to a study, a table, a recipe of the best trial and a report.

The same sweep given again goes on to the number of trials that is asked for. Nothing but training slides is looked at;
only a refit, if one is asked for, is tested.
"""

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

import optuna

from magnet_core.console import Bar, notice, progress
from magnet_core.device import pick_device
from magnet_core.engine.local import HERE
from magnet_core.engine.tasks import Engine
from magnet_core.errors import MagnetError
from magnet_core.interrupt import StopRequest
from train.pipeline import TableResult, fit
from train.settings.fit import FitConfig
from train.sweep.config import Sweep
from train.sweep.objective import benches_of_process
from train.sweep.record import check_record, whole_trials, write_results
from train.sweep.space import Value
from train.sweep.study import DATABASE, REFUSED, alone, finished, open_study
from train.sweep.trial_records import check_trials, ending, restore
from train.sweep.trials import work

REFIT = "refit"


@dataclass(frozen=True)
class SweepResult:
    """Where a sweep lies, its best trial, and its refit where one was asked for."""

    folder: Path
    finished: int
    best: int
    value: float
    values: dict[str, Value]
    refit: TableResult | None = None


def run_sweep(sweep: Sweep, *, trials: int, engine: Engine = HERE, refit: bool = False) -> SweepResult:
    """Run or resume until `trials` are finished, and return the outcome."""
    pick_device(sweep.base.device)  # one that is not there is no fault of a trial
    try:
        with alone(sweep):
            result = _run_alone(sweep, trials=trials, engine=engine)
    finally:
        benches_of_process.cache_clear()
    return replace(result, refit=refit_best(sweep, result.values)) if refit else result


def _run_alone(sweep: Sweep, *, trials: int, engine: Engine) -> SweepResult:
    bench = benches_of_process().bench(sweep.base)
    check_record(sweep, bench)
    notice(
        f"validation: {', '.join(map(str, bench.side.held_out))}; "
        f"learnt from: {', '.join(slide.slide_id for slide in bench.side.learnt.slides)}"
    )
    with ExitStack() as stack:
        with StopRequest():
            study = stack.enter_context(open_study(sweep.folder, sweep.search))
            if restored := restore(study, sweep):
                notice(f"{sweep.folder / DATABASE} was lost: made anew from the records of {restored} trials")
            check_trials(study, sweep.folder)
            num_finished = len(finished(study.get_trials(deepcopy=False)))
        if num_finished:
            notice(f"{num_finished} of {trials} trials are there")
        try:
            with progress(total=trials, initial=num_finished, desc="sweep", unit="trial") as bar:
                if num_finished < trials:
                    work(study, sweep, engine, total=trials, on_end=teller(study, bar))
        finally:
            with StopRequest():
                write_results(study, sweep)
        return summarise(study, sweep)


def teller(study: optuna.Study, bar: Bar) -> Callable[[], None]:
    """Return what says which trials have finished since it was last called, and moves the bar."""
    told = {trial.number for trial in finished(study.get_trials(deepcopy=False))}

    def tell() -> None:
        new = [trial for trial in finished(study.get_trials(deepcopy=False)) if trial.number not in told]
        for trial in new:
            told.add(trial.number)
            value = trial.user_attrs.get(REFUSED) or f"PCC per gene {trial.value:.4f}"
            notice(f"trial {trial.number} {ending(trial)}: {value}; {in_words(trial.params)}")
        if best := whole_trials(study)[:1]:
            bar.set_postfix_str(f"best {best[0].value:.4f}, trial {best[0].number}", refresh=False)
        bar.update(len(new))

    return tell


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

"""Trials on an engine: each is drawn, trained leg by leg, and told to the study, all from one process a command.

A leg ends where the pruner may end the trial, after each epoch, or at the trial's end where there is no pruner. A
trial ends in one of three ways: whole, with its value; pruned; or refused, where a configuration does not take the
combination of values, the loss is not finite, memory runs out or its processes were lost, and the reason is kept. One
under way when the command is stopped has a checkpoint, and goes on when the command is given again. Of several commands
at one sweep each has trials of its own, and all end when as many are finished as are asked for: one that has none left
waits for the others, whose trials it goes on with where they end.
"""

import shutil
import time
from collections.abc import Callable, Sequence
from typing import Any

import optuna
from optuna.trial import TrialState

from magnet_core.console import notice
from magnet_core.engine.tasks import Engine, Pool, Task, UnderWay
from magnet_core.errors import MagnetError
from magnet_core.interrupt import StopRequest
from train.settings.fit import FitConfig
from train.sweep.config import Sweep
from train.sweep.drivers import Driver
from train.sweep.objective import Leg, train_leg
from train.sweep.study import KEPT_EPOCH, REFUSED, Draw, draw, finished, scratch_folder, take_up
from train.sweep.trial_records import write_trial

WAIT_SECONDS = 2.0  # between two looks at the trials of other commands


def work(
    study: optuna.Study,
    sweep: Sweep,
    engine: Engine,
    *,
    total: int,
    driver: Driver | None = None,
    on_end: Callable[[], None] = lambda: None,
    far: UnderWay | None = None,
) -> None:
    """Run trials until `total` are finished; `on_end` is called after each, `far` hears how far those under way are.

    Without a `driver` no other command is at them.
    """
    driver, told = driver or Driver(sweep.folder), False
    with engine.open(lost=lambda _, why: Leg(refused=why), far=far and of_trials(far)) as pool:
        under_way: dict[int, Draw] = {}
        while True:
            with StopRequest():
                fill(pool, study, sweep, under_way, total=total, driver=driver, on_end=on_end)
                if not under_way and len(finished(study.get_trials(deepcopy=False))) >= total:
                    return
            if not under_way:
                if not told:
                    notice("the last trials are under way in other commands; this one goes on with any that they leave")
                    told = True
                time.sleep(WAIT_SECONDS)
                with StopRequest():
                    on_end()
                continue
            task, leg = pool.wait()
            config, folder, epochs = task.arguments
            number = int(folder.name)
            with StopRequest():
                if goes_on(study, sweep, under_way[number].trial, leg):
                    pool.submit(leg_of(config, sweep, number, after=epochs))
                else:
                    del under_way[number]
                    on_end()


def fill(
    pool: Pool[Leg],
    study: optuna.Study,
    sweep: Sweep,
    under_way: dict[int, Draw],
    *,
    total: int,
    driver: Driver,
    on_end: Callable[[], None],
) -> None:
    """Draw trials as long as there are places for them, and fewer than `total` are finished or under way anywhere."""
    while len(under_way) < pool.slots:
        with driver.turn():
            trials = study.get_trials(deepcopy=False)
            others = driver.of_others(trials)
            take_up(study, sweep, at_work={*under_way, *others})
            taken = len(finished(trials)) + len(under_way) + len(others)
            if taken >= total:
                return
            drawn = draw(study, sweep, taken)
            driver.sign(drawn.trial)
        try:
            config = sweep.config(drawn.values)
        except MagnetError as error:
            goes_on(study, sweep, drawn.trial, Leg(refused=str(error).splitlines()[0]))
            on_end()
            continue
        under_way[drawn.trial.number] = drawn
        pool.submit(leg_of(config, sweep, drawn.trial.number, after=0))


def of_trials(far: UnderWay) -> UnderWay:
    """Return what hears how far legs are, and says how far their trials are."""

    def tell(under_way: Sequence[tuple[Task[Any], float]]) -> None:
        far([(leg, part * leg.arguments[2] / leg.arguments[0].optim.epochs) for leg, part in under_way])

    return tell


def leg_of(config: FitConfig, sweep: Sweep, number: int, *, after: int) -> Task[Leg]:
    """The leg of a trial that follows so many epochs."""
    epochs = config.optim.epochs if sweep.search.pruner == "none" else after + 1
    return Task(f"trial {number}", train_leg, (config, scratch_folder(sweep, number), epochs))


def goes_on(study: optuna.Study, sweep: Sweep, trial: optuna.Trial, leg: Leg) -> bool:
    """Report a leg's scores; tell the study where they, or the pruner, end the trial."""
    seen = study.get_trials(deepcopy=False)[trial.number]
    if seen.state != TrialState.RUNNING:
        raise MagnetError(
            f"{sweep.folder}, trial {trial.number}",
            expected="a trial of this command alone",
            found="one that another command has taken up",
            remedy="let all machines see each other's locks (Lustre: mount -o flock), and give the command again",
        )
    reported = seen.intermediate_values
    for epoch, score in enumerate(leg.scores, start=1):
        if epoch not in reported:
            trial.report(score, epoch)
    if leg.refused:
        trial.set_user_attr(REFUSED, leg.refused)
        write_trial(study, sweep, trial, "refused")
        study.tell(trial, state=TrialState.PRUNED)  # so that the sampler keeps away from there
    elif leg.kept:
        trial.set_user_attr(KEPT_EPOCH, leg.kept)
        write_trial(study, sweep, trial, "whole", leg.scores[leg.kept - 1])
        study.tell(trial, leg.scores[leg.kept - 1])
    elif trial.should_prune():
        write_trial(study, sweep, trial, "pruned")
        study.tell(trial, state=TrialState.PRUNED)
    else:
        return True
    shutil.rmtree(scratch_folder(sweep, trial.number), ignore_errors=True)
    return False

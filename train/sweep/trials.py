"""Trials, one after the other, in one process: each is drawn, trained, and told to the study.

A trial ends in one of four ways: whole, with its value; pruned; refused, where a configuration does not take the
combination of values, the loss is not finite or memory runs out, and the reason is kept; or dropped, by Ctrl-C.
"""

import shutil
from collections.abc import Callable

import optuna
import torch
from optuna.trial import TrialState

from magnet_core.errors import MagnetError
from magnet_core.files import naming
from train.sweep.config import Sweep
from train.sweep.interrupts import Interrupts
from train.sweep.objective import Objective
from train.sweep.study import KEPT_EPOCH, REFUSED, Draw, Worker, scratch_folder
from train.sweep.trial_records import write_trial


def work(
    study: optuna.Study,
    sweep: Sweep,
    objective: Objective,
    interrupts: Interrupts,
    *,
    total: int,
    stopped: Callable[[], bool] = lambda: False,
    on_end: Callable[[], None] = lambda: None,
) -> None:
    """Run trials until `total` are finished or under way; `stopped` is asked before each, `on_end` called after it."""
    with Worker(study, sweep) as worker:
        while not stopped() and (draw := worker.draw(total)) is not None:
            run_trial(study, draw, sweep, objective)
            on_end()
            interrupts.raise_if_heard()


def run_trial(study: optuna.Study, draw: Draw, sweep: Sweep, objective: Objective) -> None:
    """Train a trial and tell the study how it ended."""
    trial, folder = draw.trial, scratch_folder(sweep, draw.trial.number)
    try:
        config = sweep.config(draw.values)
        folder.mkdir(parents=True)

        def report(epoch: int, score: float) -> None:
            trial.report(score, epoch)
            if epoch < config.optim.epochs and trial.should_prune():
                raise optuna.TrialPruned

        with naming(folder):
            outcome = objective.train(config, folder, report)
        trial.set_user_attr(KEPT_EPOCH, outcome.epoch)
        write_trial(study, sweep, trial, "whole", outcome.score)
        study.tell(trial, outcome.score)
    except optuna.TrialPruned:
        write_trial(study, sweep, trial, "pruned")
        study.tell(trial, state=TrialState.PRUNED)
    except (MagnetError, torch.OutOfMemoryError) as error:
        trial.set_user_attr(REFUSED, str(error).splitlines()[0])
        write_trial(study, sweep, trial, "refused")
        study.tell(trial, state=TrialState.PRUNED)  # so that the sampler keeps away from there
    except KeyboardInterrupt:
        study.tell(trial, state=TrialState.FAIL, skip_if_finished=True)  # it came while the study was told
        raise
    finally:
        shutil.rmtree(folder, ignore_errors=True)

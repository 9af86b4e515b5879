"""Trials in several processes of one machine, on one study.

In: a sweep, and how many processes. Out: nothing but the study's trials. Only the parent listens to Ctrl-C; it stops
the others, which drop the trials that are under way. Where the parent is killed, each ends after its trial.
"""

import multiprocessing
import signal
from collections.abc import Callable, Sequence
from multiprocessing.process import BaseProcess

import torch

from magnet_core.console import INTERRUPTED, EndingInOneLine, speak
from magnet_core.errors import MagnetError
from train.sweep.config import Sweep
from train.sweep.interrupts import Interrupts
from train.sweep.objective import Objective
from train.sweep.study import open_study
from train.sweep.trials import work

LOOK_SECONDS = 1.0  # between two looks at the study


def run_workers(sweep: Sweep, *, total: int, jobs: int, on_look: Callable[[], None]) -> None:
    """Run trials in `jobs` processes that share the cores, and wait for them; `on_look` is called now and then."""
    threads = max(1, torch.get_num_threads() // jobs)
    context = multiprocessing.get_context("spawn")
    workers = [context.Process(target=_process, args=(sweep, total, threads)) for _ in range(jobs)]
    try:
        for worker in workers:
            worker.start()
        while any(worker.is_alive() for worker in workers):
            for worker in workers:
                worker.join(LOOK_SECONDS / jobs)
            on_look()
    finally:
        _stop(workers)
    if failed := [worker.exitcode for worker in workers if worker.exitcode]:
        raise MagnetError(
            "sweep",
            expected=f"{jobs} processes that end well",
            found=f"{len(failed)} with exit code {', '.join(map(str, failed))} (-9: killed, as where memory runs out)",
            remedy="give the command again to go on, perhaps with fewer --jobs",
        )


def _process(sweep: Sweep, total: int, threads: int) -> None:
    """Run trials in a process of its own."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    torch.set_num_threads(threads)
    speak(quiet=True)  # the parent tells of the trials, and shows one bar over all of them
    parent = multiprocessing.parent_process()
    assert parent is not None
    try:
        with (
            EndingInOneLine(),
            Interrupts() as interrupts,
            open_study(sweep.folder, sweep.search) as study,
        ):
            work(study, sweep, Objective(), interrupts, total=total, stopped=lambda: not parent.is_alive())
    except KeyboardInterrupt:
        raise SystemExit(INTERRUPTED) from None


def _stop(workers: Sequence[BaseProcess]) -> None:
    started = [worker for worker in workers if worker.pid is not None]
    for worker in started:
        worker.terminate()
    for worker in started:
        worker.join()

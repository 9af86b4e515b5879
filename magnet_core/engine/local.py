"""Tasks on this machine: one after the other in this process, or in several, each with a GPU if there are any.

The processes are `concurrent.futures`'. Only this one listens to Ctrl-C; it stops the others, each of which ends as a
command ends that is asked to stop. Where it is killed they end, too.
"""

import multiprocessing
import os
import signal
import threading
from collections.abc import Generator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from types import FrameType

from magnet_core.console import heard_level, say_again
from magnet_core.engine.tasks import LOST, Heard, Lost, Result, Task, run_heard
from magnet_core.errors import MagnetError
from magnet_core.interrupt import Terminated, terminate

VISIBLE = "CUDA_VISIBLE_DEVICES"


@dataclass(frozen=True)
class LocalEngine:
    """Runs tasks in `jobs` processes that share the cores and the GPUs; a single job runs in this process."""

    jobs: int = 1

    def run(self, tasks: Sequence[Task[Result]], *, lost: Lost[Result]) -> Generator[tuple[Task[Result], Result]]:
        """Yield each task with its result as it ends. A process that is lost ends all, as nobody knows what it did."""
        if self.jobs == 1 or len(tasks) < 2:
            for task in tasks:
                yield task, task.run()
            return
        yield from self._in_processes(tasks)

    def _in_processes(self, tasks: Sequence[Task[Result]]) -> Generator[tuple[Task[Result], Result]]:
        jobs = min(self.jobs, len(tasks))
        context = multiprocessing.get_context("spawn")
        numbers = context.SimpleQueue()
        for number in range(jobs):
            numbers.put(number)
        threads = max(1, len(os.sched_getaffinity(0)) // jobs)
        executor = ProcessPoolExecutor(jobs, context, initializer=_begin, initargs=(numbers, threads, visible_gpus()))
        try:
            task_of = {executor.submit(_run, task, heard_level()): task for task in tasks}
            for future in as_completed(task_of):
                heard = future.result()
                say_again(heard.said)
                yield task_of[future], heard.result
        except BrokenProcessPool as error:
            raise MagnetError(
                f"--jobs {self.jobs}",
                expected=f"{jobs} processes that end well",
                found=f"of one: {LOST}",
                remedy="give the command again to go on, perhaps with fewer --jobs",
            ) from error
        finally:
            for process in multiprocessing.active_children():
                process.terminate()  # no effect on one that has nothing to do
            executor.shutdown(cancel_futures=True)


HERE = LocalEngine()


def visible_gpus() -> list[str]:
    """The GPUs of this process, as `CUDA_VISIBLE_DEVICES` names them."""
    if VISIBLE in os.environ:
        return [name for name in os.environ[VISIBLE].split(",") if name.strip()]
    import torch  # takes seconds, and is imported by all that comes next

    return [str(number) for number in range(torch.cuda.device_count())]


def _begin(numbers: "multiprocessing.SimpleQueue[int]", threads: int, gpus: Sequence[str]) -> None:
    """Set up a process: its share of cores, its GPU, and the signals that it heeds."""
    if gpus:
        os.environ[VISIBLE] = gpus[numbers.get() % len(gpus)]
    for number in (signal.SIGINT, signal.SIGUSR2):  # which a terminal, or Slurm, sends to all processes
        signal.signal(number, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, _stop)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    import torch  # after its GPU was chosen

    torch.set_num_threads(threads)


_is_at_work = _is_to_stop = False


def _run(task: Task[Result], level: int) -> Heard[Result]:
    global _is_at_work
    _is_at_work = True
    try:
        if _is_to_stop:  # asked between two tasks, or while this process was set up
            raise Terminated
        return run_heard(task, level)
    finally:
        _is_at_work = False


def _stop(number: int, frame: FrameType | None) -> None:
    """End the work as SIGTERM does, and that of the tasks to come; without any, the parent ends this process."""
    global _is_to_stop
    _is_to_stop = True
    if _is_at_work:
        terminate(number, frame)


def _end_with_parent() -> None:
    """Ask this process to stop once its parent is gone, which a process that waits for tasks would not notice."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    if _is_at_work:
        os.kill(os.getpid(), signal.SIGTERM)
    else:
        os._exit(1)

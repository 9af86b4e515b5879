"""Tasks on this machine: one after the other in this process, or in several, each with a GPU if there are any.

The processes are `concurrent.futures`'. Only this one listens to Ctrl-C; it stops the others, each of which ends as a
command ends that is asked to stop. Where it is killed they end, too. What part of its task each has done lies in memory
that all share, two numbers a process, and is read while a result is waited for.
"""

import ctypes
import itertools
import multiprocessing
import os
import signal
import threading
import time
from collections import deque
from collections.abc import Generator, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType
from typing import Generic

from magnet_core.console import heard_level, say_again
from magnet_core.engine.tasks import LOST, Engine, Heard, Lost, Pool, Result, Task, UnderWay, run_heard
from magnet_core.errors import MagnetError
from magnet_core.interrupt import Terminated, terminate

VISIBLE = "CUDA_VISIBLE_DEVICES"
Places = ctypes.Array[ctypes.c_double]  # of each process the number of its task, from 1, and the part that is done
LOOK_SECONDS = 0.5  # between two looks at how far the processes are


@dataclass(frozen=True)
class LocalEngine(Engine):
    """Runs tasks in `jobs` processes that share the cores and the GPUs; a single job runs in this process."""

    jobs: int = 1

    @property
    def in_this_process(self) -> bool:
        """Whether there is a single job."""
        return self.jobs == 1

    @contextmanager
    def open(self, *, lost: Lost[Result], far: UnderWay | None = None) -> Iterator[Pool[Result]]:
        """Yield a pool. A process that is lost ends all, as nobody knows what it did."""
        if self.jobs == 1:
            yield _InTurn()
            return
        context = multiprocessing.get_context("spawn")
        numbers = context.SimpleQueue()
        for number in range(self.jobs):
            numbers.put(number)
        threads = max(1, len(os.sched_getaffinity(0)) // self.jobs)
        places = context.RawArray(ctypes.c_double, 2 * self.jobs)
        given = (numbers, threads, visible_gpus(), places)
        executor = ProcessPoolExecutor(self.jobs, context, initializer=_begin, initargs=given)
        try:
            yield _InProcesses(executor, self.jobs, places, far)
        except BrokenProcessPool as error:
            raise MagnetError(
                f"--jobs {self.jobs}",
                expected=f"{self.jobs} processes that end well",
                found=f"of one: {LOST}",
                remedy="give the command again to go on, perhaps with fewer --jobs",
            ) from error
        finally:
            for process in multiprocessing.active_children():
                process.terminate()  # no effect on one that has nothing to do
            executor.shutdown(cancel_futures=True)

    def run(
        self, tasks: Sequence[Task[Result]], *, lost: Lost[Result], far: UnderWay | None = None
    ) -> Generator[tuple[Task[Result], Result]]:
        """Yield each task with its result as it ends; no more processes are started than there are tasks."""
        if 0 < len(tasks) < self.jobs:
            return LocalEngine(len(tasks)).run(tasks, lost=lost, far=far)
        return super().run(tasks, lost=lost, far=far)


class _InTurn(Generic[Result]):
    """Tasks in this process, each done when its result is waited for."""

    slots = 1

    def __init__(self) -> None:
        self._tasks: deque[Task[Result]] = deque()

    def submit(self, task: Task[Result]) -> None:
        self._tasks.append(task)

    def wait(self) -> tuple[Task[Result], Result]:
        task = self._tasks.popleft()
        return task, task.run()


class _InProcesses(Generic[Result]):
    """Tasks of an executor's processes."""

    def __init__(self, executor: ProcessPoolExecutor, slots: int, places: Places, far: UnderWay | None) -> None:
        self.slots = slots
        self._executor = executor
        self._places = places
        self._far = far
        self._submitted = itertools.count(1)
        self._task_of: dict[Future[Heard[Result]], tuple[int, Task[Result]]] = {}

    def submit(self, task: Task[Result]) -> None:
        number = next(self._submitted)
        self._task_of[self._executor.submit(_run, task, heard_level(), number)] = (number, task)

    def wait(self) -> tuple[Task[Result], Result]:
        seconds = None if self._far is None else LOOK_SECONDS
        while not (done := wait(self._task_of, timeout=seconds, return_when=FIRST_COMPLETED).done):
            self._tell()
        future = next(iter(done))
        (_, task), heard = self._task_of.pop(future), future.result()
        say_again(heard.said)
        return task, heard.result

    def _tell(self) -> None:
        tasks = dict(self._task_of.values())
        places = (self._places[place : place + 2] for place in range(0, 2 * self.slots, 2))
        under_way = sorted((int(number), part) for number, part in places if int(number) in tasks)
        if self._far is not None and under_way:
            self._far([(tasks[number], part) for number, part in under_way])


HERE = LocalEngine()


def visible_gpus() -> list[str]:
    """The GPUs of this process, as `CUDA_VISIBLE_DEVICES` names them."""
    if VISIBLE in os.environ:
        return [name for name in os.environ[VISIBLE].split(",") if name.strip()]
    import torch  # takes seconds, and is imported by all that comes next

    return [str(number) for number in range(torch.cuda.device_count())]


def _begin(numbers: "multiprocessing.SimpleQueue[int]", threads: int, gpus: Sequence[str], places: Places) -> None:
    """Set up a process: its share of cores, its GPU, its place for how far it is, and the signals that it heeds."""
    global _place, _places
    _place, _places = 2 * numbers.get(), places
    if gpus:
        os.environ[VISIBLE] = gpus[_place // 2 % len(gpus)]
    for number in (signal.SIGINT, signal.SIGUSR2):  # which a terminal, or Slurm, sends to all processes
        signal.signal(number, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, _stop)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    import torch  # after its GPU was chosen

    torch.set_num_threads(threads)


_is_at_work = _is_to_stop = False
_place, _places = 0, (ctypes.c_double * 2)()


def _run(task: Task[Result], level: int, number: int) -> Heard[Result]:
    global _is_at_work, _is_to_stop
    _is_at_work = True
    try:
        _far(0.0)
        _places[_place] = number
        if _is_to_stop:  # asked between two tasks, or while this process was set up
            raise Terminated
        return run_heard(task, level, _far)
    except KeyboardInterrupt:  # of a signal that the task noted in place of `_stop`; what is queued already comes here
        _is_to_stop = True
        raise
    finally:
        _places[_place] = 0.0
        _is_at_work = False


def _far(part: float) -> None:
    """Note what part of the task is done."""
    _places[_place + 1] = part


def _stop(number: int, frame: FrameType | None) -> None:
    """End the work as SIGTERM does, and that of the tasks to come; without any, the parent ends this process."""
    global _is_to_stop
    _is_to_stop = True
    if _is_at_work:
        terminate(number, frame)


def _end_with_parent() -> None:
    """Ask the task to stop once the parent is gone, and end: a process that waits for tasks would not notice."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    if _is_at_work:
        os.kill(os.getpid(), signal.SIGTERM)
    while _is_at_work:
        time.sleep(LOOK_SECONDS)
    os._exit(1)

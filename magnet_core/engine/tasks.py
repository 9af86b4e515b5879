"""Work that any process may do, on any machine that sees the same files: what it is, what it needs, what came of it.

In: tasks. Out: their results, as they end. A task is idempotent: what it makes has one name and is made once, so that
it may be given again after its process was lost. What is wrong with its input is part of its result; what it raises
ends all the others as well.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Generator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

from magnet_core.console import Bar, Said, collected
from magnet_core.unseen_bar import Far

Result = TypeVar("Result")
MOST_SHOWN = 6  # tasks under way in the words of a bar

LOST = "the process that worked on it was lost (killed, as where memory runs out, or its machine went)"


@dataclass(frozen=True)
class Needs:
    """What an engine reserves for a task while it runs.

    cpus        processors
    gpus        GPUs, or a part of one: 0.25 lets four tasks share it; None: one where there are GPUs
    memory_gib  memory; 0 reserves none
    """

    cpus: float = 1.0
    gpus: float | None = None
    memory_gib: float = 0.0


@dataclass(frozen=True)
class Task(Generic[Result]):
    """A function of arguments that can be pickled; `name` says what it is, such as 'slide S1'."""

    name: str
    work: Callable[..., Result]
    arguments: tuple[Any, ...]

    def run(self) -> Result:
        """Do the work in this process."""
        return self.work(*self.arguments)


@dataclass(frozen=True)
class Heard(Generic[Result]):
    """What a task gave in another process, and what it said meanwhile."""

    result: Result
    said: Sequence[Said]


def run_heard(task: Task[Result], level: int, far: Far | None = None) -> Heard[Result]:
    """Do a task's work in a process that the user does not see, and keep what it says from a level on.

    What part of it is done, as its bars know it, goes to `far`.
    """
    with collected(level, far) as said:
        result = task.run()
    return Heard(result, said)


Lost = Callable[[Task[Result], str], Result]  # the result of a task that an engine gave up, and why
UnderWay = Callable[[Sequence[tuple[Task[Any], float]]], None]  # hears which tasks run, and what part of each is done


def in_words(under_way: Sequence[tuple[Task[Any], float]]) -> str:
    """Say how far tasks are: 'slide S3 41 %, slide S5 12 %'."""
    more = f" and {len(under_way) - MOST_SHOWN} more" if len(under_way) > MOST_SHOWN else ""
    return ", ".join(f"{task.name} {100 * part:.0f} %" for task, part in under_way[:MOST_SHOWN]) + more


def shown_by(bar: Bar) -> UnderWay:
    """Return what says behind the numbers of a bar how far tasks are."""

    def show(under_way: Sequence[tuple[Task[Any], float]]) -> None:
        bar.set_postfix_str(in_words(under_way))
        bar.update(0)  # a line of a log, where its time has come

    return show


class Pool(Protocol[Result]):
    """Tasks under way, and those that wait for one of `slots` places."""

    @property
    def slots(self) -> int:
        """How many tasks run at the same time."""

    def submit(self, task: Task[Result]) -> None:
        """Give a task, perhaps one that follows from the result of another."""

    def wait(self) -> tuple[Task[Result], Result]:
        """Return the next task that ends, and its result; what it raises is raised here."""


class Engine(ABC):
    """Runs tasks."""

    @property
    def in_this_process(self) -> bool:
        """Whether all of them run here, one after the other."""
        return False

    @abstractmethod
    def open(self, *, lost: Lost[Result], far: UnderWay | None = None) -> AbstractContextManager[Pool[Result]]:
        """Yield a pool, at whose end tasks that are under way are stopped, after they saved what they have.

        A task whose process was lost is given again where the engine does so, and else has the result of `lost`. While
        a result is waited for, `far` hears now and then how far tasks are, of an engine that knows.
        """

    def run(
        self, tasks: Sequence[Task[Result]], *, lost: Lost[Result], far: UnderWay | None = None
    ) -> Generator[tuple[Task[Result], Result]]:
        """Yield each task with its result as it ends, in any order."""
        if not tasks:
            return
        with self.open(lost=lost, far=far) as pool:
            for task in tasks:
                pool.submit(task)
            for _ in tasks:
                yield pool.wait()

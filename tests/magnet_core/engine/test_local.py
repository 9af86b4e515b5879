import operator
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from logging import WARNING
from pathlib import Path
from typing import Any

import pytest
import torch

from magnet_core.console import NOTICE, logger, progress
from magnet_core.engine.local import VISIBLE, LocalEngine, visible_gpus
from magnet_core.engine.shard import Shard
from magnet_core.engine.tasks import Task, shown_by
from magnet_core.errors import MagnetError
from magnet_core.log_bar import LogBar


def never(task: Task[Any], why: str) -> Any:
    return pytest.fail(f"{task.name}: {why}")


def squares(numbers: range) -> list[Task[int]]:
    return [Task(f"square of {number}", operator.mul, (number, number)) for number in numbers]


@pytest.mark.parametrize("jobs", [1, 2])
def test_every_task_is_yielded_once_with_its_result(jobs: int) -> None:
    done = list(LocalEngine(jobs).run(squares(range(5)), lost=never))
    assert sorted((task.name, result) for task, result in done) == [(f"square of {n}", n * n) for n in range(5)]


def test_one_job_works_in_this_process_and_several_in_others_that_share_the_cores() -> None:
    pids = [Task(f"pid {number}", os.getpid, ()) for number in range(3)]
    assert {pid for _, pid in LocalEngine(1).run(pids, lost=never)} == {os.getpid()}
    assert os.getpid() not in {pid for _, pid in LocalEngine(2).run(pids, lost=never)}
    threads = [Task(f"threads {number}", torch.get_num_threads, ()) for number in range(2)]
    share = max(1, len(os.sched_getaffinity(0)) // 2)
    assert {each for _, each in LocalEngine(2).run(threads, lost=never)} == {share}


def test_each_process_has_a_gpu_of_its_own_where_there_are_some(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VISIBLE, "3,5")
    assert visible_gpus() == ["3", "5"]
    asked = [Task(f"gpu {number}", os.getenv, (VISIBLE,)) for number in range(2)]
    asked += [Task(f"wait {number}", time.sleep, (0.5,)) for number in range(2)]  # so that both processes work
    seen = {gpu for _, gpu in LocalEngine(2).run(asked, lost=never)} - {None}
    assert seen <= {"3", "5"}
    assert seen


@pytest.mark.parametrize("jobs", [1, 2])
def test_what_a_task_raises_ends_all_as_the_line_it_was(jobs: int) -> None:
    tasks = [Task(f"part {number}", Shard.parse, ("nonsense",)) for number in range(2)]
    with pytest.raises(MagnetError, match=r"^--shard: expected I/N, a part from 1 to N, such as 2/8, found 'nonsense'"):
        list(LocalEngine(jobs).run(tasks, lost=never))


def test_a_process_that_is_killed_ends_all_in_one_line() -> None:
    tasks = [Task(f"exit {number}", os._exit, (9,)) for number in range(2)]
    with pytest.raises(MagnetError, match=r"--jobs 2: expected 2 processes that end well, found of one: .* was lost"):
        list(LocalEngine(2).run(tasks, lost=never))


@pytest.mark.parametrize("jobs", [1, 2])
def test_what_a_task_says_is_heard_here_from_the_same_level_on(jobs: int, caplog: pytest.LogCaptureFixture) -> None:
    tasks = [Task("hint", logger("x").info, ("a hint",)), Task("warning", logger("x").warning, ("%s slides", 3))]
    caplog.set_level(NOTICE, "magnet_hd")
    assert len(list(LocalEngine(jobs).run(tasks, lost=never))) == 2
    assert caplog.record_tuples == [("magnet_hd.x", WARNING, "3 slides")]


def do_a_quarter(seen: Path) -> None:
    """Do a step of four, and the others once that was seen."""
    with progress(total=4) as bar:
        bar.update()
        deadline = time.monotonic() + 240
        while not seen.exists() and time.monotonic() < deadline:
            time.sleep(0.05)
        bar.update(3)


def test_how_far_tasks_are_is_seen_while_they_run(tmp_path: Path) -> None:
    told, seen = set[tuple[str, float]](), tmp_path / "seen"

    def far(under_way: Sequence[tuple[Task[Any], float]]) -> None:
        told.update((task.name, part) for task, part in under_way)
        if {("one", 0.25), ("two", 0.25)} <= told:
            seen.touch()

    tasks = [Task(name, do_a_quarter, (seen,)) for name in ("one", "two")]
    assert len(list(LocalEngine(2).run(tasks, lost=never, far=far))) == 2
    assert seen.exists()
    assert {name for name, _ in told} == {"one", "two"}


def test_a_bar_says_how_far_tasks_are() -> None:
    bar = LogBar(total=8, desc="slides", unit="slide")
    shown_by(bar)([(Task(f"slide S{number}", os.getpid, ()), number / 10) for number in range(8)])
    parts = ", ".join(f"slide S{number} {10 * number} %" for number in range(6))
    assert bar.line() == f"slides  0/8 slides  0 %  {parts} and 2 more"


PROGRAM = """
import sys, time
from pathlib import Path
from magnet_core.engine.local import LocalEngine
from magnet_core.engine.tasks import Task
from magnet_core.interrupt import StopRequest

def stopped_at_once(begun):
    begun.touch()
    time.sleep(600)

def stopped_when_it_looks(begun):
    with StopRequest() as stop:
        begun.touch()
        while not stop.requested:
            time.sleep(0.1)

if __name__ == "__main__":
    folder, work = Path(sys.argv[1]), globals()[sys.argv[2]]
    tasks = [Task(f"work {n}", work, (folder / f"begun-{n}",)) for n in range(6)]
    list(LocalEngine(2).run(tasks, lost=lambda task, why: why))
"""


def children_of(pid: int) -> list[int]:
    listed = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [int(child) for child in listed if "spawn_main" in Path(f"/proc/{child}/cmdline").read_text()]


@pytest.mark.parametrize("work", ["stopped_at_once", "stopped_when_it_looks"])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_the_processes_end_with_their_parent_and_begin_nothing_more(
    number: signal.Signals, work: str, tmp_path: Path
) -> None:
    program = tmp_path / "program.py"
    program.write_text(PROGRAM)
    with subprocess.Popen([sys.executable, str(program), str(tmp_path), work], stderr=subprocess.DEVNULL) as process:
        deadline = time.monotonic() + 120
        while len(list(tmp_path.glob("begun-*"))) < 2 and time.monotonic() < deadline:
            time.sleep(0.1)
        workers = children_of(process.pid)
        process.send_signal(number)
        process.wait(60)
    while any(Path(f"/proc/{worker}").exists() for worker in workers) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert len(workers) == 2
    assert not [worker for worker in workers if Path(f"/proc/{worker}").exists()]
    assert sorted(path.name for path in tmp_path.glob("begun-*")) == ["begun-0", "begun-1"]

"""Tasks on a real cluster of two nodes, some of which are lost on the way."""

import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from magnet_core.engine.ray_cluster import RETRIES, RayEngine
from magnet_core.engine.shard import Shard
from magnet_core.engine.tasks import Needs, Task
from magnet_core.errors import MagnetError
from tests.nodes import two_nodes

pytestmark = pytest.mark.slow

# Programs, as a node has no functions of these tests: `log` has a line for each time that one begins.
ONCE = "import os; open({log!r}, 'a').write('begun\\n')\nif open({log!r}).read().count('begun') == 1: os._exit(9)"
WAIT = (
    "import time; open({log!r}, 'a').write('begun\\n')\nwhile not __import__('os').path.exists({go!r}): time.sleep(0.1)"
)
SAVE = (
    "import time\nopen({log!r}, 'a').write('begun\\n')\n"
    "try:\n while True: time.sleep(0.1)\nexcept KeyboardInterrupt: open({log!r}, 'a').write('saved\\n'); raise"
)


@pytest.fixture
def cluster() -> Iterator[Any]:
    """Two nodes of a processor each."""
    with two_nodes() as nodes:
        yield nodes


def program(name: str, text: str, **values: object) -> Task[str]:
    return Task(name, exec, (text.format(**{name: str(value) for name, value in values.items()}), {}))  # type: ignore[arg-type]


def never(task: Task[Any], why: str) -> Any:
    return pytest.fail(f"{task.name}: {why}")


def lines(log: Path) -> list[str]:
    return log.read_text().split() if log.exists() else []


def wait_until(is_so: Any) -> None:
    deadline = time.monotonic() + 120
    while not is_so() and time.monotonic() < deadline:
        time.sleep(0.1)
    assert is_so()


def go_once_both_run(folder: Path) -> None:
    wait_until(lambda: all((folder / f"log{number}").exists() for number in (0, 1)))  # at once, one on each node
    (folder / "go").touch()


def test_tasks_are_spread_over_the_nodes_and_faults_are_raised(cluster: Any, tmp_path: Path) -> None:
    engine = RayEngine(cluster.address)
    both = [program(f"wait {number}", WAIT, log=tmp_path / f"log{number}", go=tmp_path / "go") for number in (0, 1)]
    threading.Thread(target=go_once_both_run, args=(tmp_path,)).start()
    assert sorted(task.name for task, _ in engine.run(both, lost=never)) == ["wait 0", "wait 1"]
    with pytest.raises(MagnetError, match=r"^--shard: expected I/N, a part .*found 'nonsense'"):
        list(engine.run([Task("part", Shard.parse, ("nonsense",))], lost=never))
    for needs, said in (Needs(cpus=3), "at most 2 CPU.*found 3"), (Needs(gpus=1), "at most 0 GPU.*found 1"):
        with pytest.raises(MagnetError, match=said):
            list(RayEngine(cluster.address, needs).run(both, lost=never))


def test_a_task_whose_process_is_killed_is_given_again_but_not_for_ever(cluster: Any, tmp_path: Path) -> None:
    always = program("always", "import os; open({log!r}, 'a').write('begun\\n'); os._exit(9)", log=tmp_path / "always")
    once = program("once", ONCE, log=tmp_path / "once")
    done = {task.name: said for task, said in RayEngine(cluster.address).run([once, always], lost=lambda _, why: why)}
    assert done["once"] is None
    assert lines(tmp_path / "once") == ["begun"] * 2
    assert done["always"].startswith("the process that worked on it was lost")
    assert lines(tmp_path / "always") == ["begun"] * (RETRIES + 1)


def test_a_node_that_goes_and_one_that_comes_cost_no_task(cluster: Any, tmp_path: Path) -> None:
    gone = cluster.add_node(num_cpus=1)
    cluster.wait_for_nodes()
    tasks = [program(f"{n}", WAIT, log=tmp_path / f"log{n}", go=tmp_path / "go") for n in range(4)]
    done: list[str] = []
    thread = threading.Thread(
        target=lambda: done.extend(task.name for task, _ in RayEngine(cluster.address).run(tasks, lost=never))
    )
    thread.start()
    wait_until(lambda: sum((tmp_path / f"log{n}").exists() for n in range(4)) == 3)  # one on each node
    cluster.remove_node(gone, allow_graceful=False)
    cluster.add_node(num_cpus=1)
    wait_until(lambda: sum(len(lines(tmp_path / f"log{n}")) for n in range(4)) >= 4)  # on the new node
    (tmp_path / "go").touch()
    thread.join(120)
    assert sorted(done) == ["0", "1", "2", "3"]
    assert sum(len(lines(tmp_path / f"log{n}")) for n in range(4)) == 5  # one was begun twice


def test_tasks_that_are_stopped_save_what_they_have(cluster: Any, tmp_path: Path) -> None:
    engine = RayEngine(cluster.address)
    tasks = [program("quick", "pass"), *(program(f"{n}", SAVE, log=tmp_path / f"log{n}") for n in range(3))]
    running = engine.run(tasks, lost=never)
    assert next(running)[0].name == "quick"
    wait_until(lambda: sum(lines(tmp_path / f"log{n}") == ["begun"] for n in range(3)) == 2)
    with pytest.raises(KeyboardInterrupt):
        running.throw(KeyboardInterrupt)  # as Ctrl-C does where results are waited for
    states = sorted(lines(tmp_path / f"log{n}") for n in range(3))
    assert states == [[], ["begun", "saved"], ["begun", "saved"]]


def test_no_cluster_where_one_is_said_to_be_is_one_line() -> None:
    with pytest.raises(
        MagnetError, match=r"^--address 127.0.0.1:1: expected a Ray cluster, found .*refused; start one"
    ):
        list(RayEngine("127.0.0.1:1").run([Task("x", len, ("",))], lost=lambda *_: 0))

"""Tasks on a Ray cluster: Ray places them, and gives those again whose process or machine was lost.

All nodes have to see the same files under the same paths. A task that is given again goes on from what it has left
there. See https://docs.ray.io/en/latest/ray-core/fault_tolerance/tasks.html.
"""

import os
import re
import socket
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from magnet_core.console import heard_level, notice, say_again
from magnet_core.engine.tasks import LOST, Heard, Lost, Needs, Result, Task, run_heard
from magnet_core.errors import MagnetError, MissingExtraError

RETRIES = 3  # of a task whose process was lost
STOP_SECONDS = 60  # in which tasks that are asked to stop save what they have
KNOCK_SECONDS = 10
OURS = "MAGNET_HD_"  # what the names of our environment variables begin with
GIB = 2**30


@dataclass(frozen=True)
class RayEngine:
    """Runs tasks on the cluster at `address`; None: that of the environment (RAY_ADDRESS), or one of this machine."""

    address: str | None = None
    needs: Needs = Needs()

    def run(self, tasks: Sequence[Task[Result]], *, lost: Lost[Result]) -> Generator[tuple[Task[Result], Result]]:
        """Yield each task with its result as it ends; one that was lost for the last time has the result of `lost`."""
        if not tasks:
            return
        with _connected(self.address) as ray:
            remote = ray.remote(_run).options(**_options(self.needs, ray.cluster_resources()))
            task_of: dict[Any, Task[Result]] = {
                remote.remote(task, heard_level(), str(Path.cwd()), _own_variables()): task for task in tasks
            }
            try:
                while task_of:
                    (reference,), _ = ray.wait(list(task_of), num_returns=1)
                    task = task_of.pop(reference)
                    yield task, _result_of(ray, reference, task, lost)
            finally:
                if task_of:
                    _stop(ray, list(task_of))


def require_ray() -> ModuleType:
    """Import Ray, or say which extra brings it."""
    try:
        import ray
    except ImportError as error:
        raise MissingExtraError("--engine ray", package="ray", extra="cluster") from error
    module: ModuleType = ray
    return module


@contextmanager
def _connected(address: str | None) -> Iterator[ModuleType]:
    """Connect to a cluster, or start one of this machine alone."""
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")  # a task without GPUs leaves their list as it is
    ray = require_ray()
    given = address or os.environ.get("RAY_ADDRESS")
    try:
        _knock(given or "")
        ray.init(address=given, log_to_driver=False, logging_level="ERROR")
    except (OSError, ValueError, RuntimeError) as error:
        raise MagnetError(
            f"--address {given}",
            expected="a Ray cluster",
            found=str(error).partition("\n")[0],
            remedy="start one with 'ray start --head', or leave --address out for one of this machine",
        ) from error
    try:
        resources = ray.cluster_resources()
        notice(
            f"Ray: {len(ray.nodes())} nodes, {resources.get('CPU', 0):g} processors, {resources.get('GPU', 0):g} GPUs"
        )
        yield ray
    finally:
        ray.shutdown()


def _knock(address: str) -> None:
    """Find out within seconds whether something listens at HOST:PORT, as Ray tries for minutes."""
    if match := re.fullmatch(r"([^:/]+):(\d{1,5})", address):
        socket.create_connection((match[1], int(match[2])), timeout=KNOCK_SECONDS).close()


def _options(needs: Needs, resources: dict[str, float]) -> dict[str, Any]:
    """A task's needs in Ray's words; more than a cluster has is an error, as such a task would wait for ever."""
    gpus = needs.gpus if needs.gpus is not None else float(resources.get("GPU", 0) > 0)
    asked = {"CPU": needs.cpus, "GPU": gpus, "memory": needs.memory_gib * GIB}
    for name, amount in asked.items():
        if amount > resources.get(name, 0):
            unit, scale = ("GiB of memory", GIB) if name == "memory" else (name, 1)
            raise MagnetError(
                "--needs",
                expected=f"at most {resources.get(name, 0) / scale:g} {unit}, which the cluster has",
                found=f"{amount / scale:g}",
                remedy="ask for less, or add nodes",
            )
    return {
        "num_cpus": needs.cpus,
        "num_gpus": gpus,
        "memory": asked["memory"] or None,
        "max_retries": RETRIES,
        "retry_exceptions": False,
    }


def _own_variables() -> dict[str, str]:
    """The environment variables of this project, which a node does not have."""
    return {name: value for name, value in os.environ.items() if name.startswith(OURS)}


def _run(task: Task[Result], level: int, folder: str, variables: Mapping[str, str]) -> Heard[Result]:
    """Run a task in the folder that the command was given in, whose paths may be relative to it."""
    os.chdir(folder)
    os.environ.update(variables)
    return run_heard(task, level)


def _result_of(ray: ModuleType, reference: Any, task: Task[Result], lost: Lost[Result]) -> Result:
    try:
        heard: Heard[Result] = ray.get(reference)
    except ray.exceptions.RayTaskError as error:
        raise error.cause from None
    except ray.exceptions.RayError as error:
        return lost(task, f"{LOST}, {RETRIES + 1} times ({type(error).__name__})")
    say_again(heard.said)
    return heard.result


def _stop(ray: ModuleType, references: list[Any]) -> None:
    """Ask tasks to stop, and wait while they save what they have."""
    for reference in references:
        ray.cancel(reference)
    ray.wait(references, num_returns=len(references), timeout=STOP_SECONDS)

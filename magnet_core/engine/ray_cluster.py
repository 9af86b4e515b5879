"""Tasks on a Ray cluster: Ray places them, and gives those again whose process or machine was lost.

All nodes have to see the same files under the same paths. A task that is given again goes on from what it has left
there. See https://docs.ray.io/en/latest/ray-core/fault_tolerance/tasks.html.
"""

import os
import re
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, Generic

from magnet_core.console import heard_level, notice, say_again
from magnet_core.engine.tasks import LOST, Engine, Heard, Lost, Needs, Pool, Result, Task, UnderWay, run_heard
from magnet_core.errors import MagnetError, MissingExtraError

RETRIES = 3  # of a task whose process was lost
STOP_SECONDS = 60  # in which tasks that are asked to stop save what they have
KNOCK_SECONDS = 10
OURS = "MAGNET_HD_"  # what the names of our environment variables begin with
GIB = 2**30


@dataclass(frozen=True)
class RayEngine(Engine):
    """Runs tasks on the cluster at `address`; None: that of the environment (RAY_ADDRESS), or one of this machine."""

    address: str | None = None
    needs: Needs = Needs()

    @contextmanager
    def open(self, *, lost: Lost[Result], far: UnderWay | None = None) -> Iterator[Pool[Result]]:
        """Yield a pool; a task that was lost for the last time has the result of `lost`; `far` hears nothing."""
        with _connected(self.address) as ray:
            pool = _OnCluster(ray, self.needs, lost)
            try:
                yield pool
            finally:
                pool.stop()


class _OnCluster(Generic[Result]):
    """Tasks that Ray has."""

    def __init__(self, ray: ModuleType, needs: Needs, lost: Lost[Result]) -> None:
        resources = ray.cluster_resources()
        options = _options(needs, resources)
        asked = {"CPU": options["num_cpus"], "GPU": options["num_gpus"], "memory": options["memory"] or 0}
        self.slots = max(
            1, int(min((resources.get(name, 0) / amount for name, amount in asked.items() if amount), default=1))
        )
        self._ray = ray
        self._lost = lost
        self._remote = ray.remote(_run).options(**options)
        self._task_of: dict[Any, Task[Result]] = {}

    def submit(self, task: Task[Result]) -> None:
        self._task_of[self._remote.remote(task, heard_level(), str(Path.cwd()), _own_variables())] = task

    def wait(self) -> tuple[Task[Result], Result]:
        (reference,), _ = self._ray.wait(list(self._task_of), num_returns=1)
        task = self._task_of.pop(reference)
        return task, _result_of(self._ray, reference, task, self._lost)

    def stop(self) -> None:
        """Ask tasks that are under way to stop, and wait while they save what they have."""
        references = list(self._task_of)
        for reference in references:
            self._ray.cancel(reference)
        if references:
            self._ray.wait(references, num_returns=len(references), timeout=STOP_SECONDS)


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
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nobody is told of a cluster that is started here
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

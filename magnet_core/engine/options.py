"""Options of every command whose work an engine may spread, and the engine they choose. Imports no engine's library."""

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated, Any

import typer

from magnet_core.commandline import with_options
from magnet_core.engine.local import LocalEngine
from magnet_core.engine.ray_cluster import RayEngine, require_ray
from magnet_core.engine.shard import Shard
from magnet_core.engine.tasks import Engine, Needs
from magnet_core.errors import MagnetError
from magnet_core.torchrun import refuse_torchrun


class EngineName(StrEnum):
    """What spreads the work."""

    LOCAL = "local"
    RAY = "ray"


EngineOption = Annotated[
    EngineName, typer.Option("--engine", help="local: this machine; ray: a cluster, with the extra [cluster].")
]
JobsOption = Annotated[
    int, typer.Option(min=1, help="Processes of this machine at the same time, each with a GPU if there are any.")
]
AddressOption = Annotated[
    str | None, typer.Option(help="Of the Ray cluster, such as auto or HOST:6379; a new one of this machine if none.")
]
NeedsOption = Annotated[
    str | None, typer.Option(help="What Ray keeps free for each task: cpus=2,gpus=0.5,memory=16 (GiB); 1 CPU, 1 GPU.")
]
ShardOption = Annotated[
    str | None, typer.Option(help="I/N: this part of the work alone, from 1; for arrays of Slurm, without an engine.")
]
OPTIONS: dict[str, tuple[Any, Any]] = {
    "jobs": (JobsOption, 1),
    "engine": (EngineOption, EngineName.LOCAL),
    "address": (AddressOption, None),
    "needs": (NeedsOption, None),
    "shard": (ShardOption, None),
}
NEEDS = {"cpus": "cpus", "gpus": "gpus", "memory": "memory_gib"}


@dataclass(frozen=True)
class Spread:
    """How the work of a command is spread: by what, and which part of it is this command's; None: all."""

    engine: Engine
    shard: Shard | None = None


def spread_by_options(function: Callable[..., None]) -> Callable[..., None]:
    """Give a command the options of engines, from which its parameter `spread` is made; they are checked first."""
    return _spread(function, OPTIONS)


def spread_whole(function: Callable[..., None]) -> Callable[..., None]:
    """As `spread_by_options`, for work that has no parts: without --shard."""
    return _spread(function, {name: option for name, option in OPTIONS.items() if name != "shard"})


def _spread(function: Callable[..., None], options: Mapping[str, tuple[Any, Any]]) -> Callable[..., None]:
    @functools.wraps(function)
    def command(
        *, jobs: int, engine: EngineName, address: str | None, needs: str | None, shard: str | None = None, **own: Any
    ) -> None:
        chosen = choose_engine(engine, jobs=jobs, address=address, needs=needs)
        function(**own, spread=Spread(chosen, Shard.parse(shard) if shard is not None else None))

    return with_options(command, function, options, less="spread")


def choose_engine(name: EngineName, *, jobs: int, address: str | None, needs: str | None) -> Engine:
    """Return the engine that is asked for; options that it does not take are an error, and so is torchrun."""
    refuse_torchrun()
    of_ray = {"--address": address, "--needs": needs}
    if name is EngineName.LOCAL:
        if given := [option for option, value in of_ray.items() if value is not None]:
            raise MagnetError(given[0], expected="it with --engine ray", found="--engine local", remedy="leave it out")
        return LocalEngine(jobs)
    if jobs != 1:
        raise MagnetError(
            "--jobs",
            expected="it with --engine local",
            found="--engine ray",
            remedy="leave it out: Ray runs as many tasks as its nodes have room for, see --needs",
        )
    require_ray()
    return RayEngine(address, parse_needs(needs or ""))


def parse_needs(text: str) -> Needs:
    """Read 'cpus=2,gpus=0.5,memory=16'."""
    values: dict[str, float] = {}
    for part in filter(None, map(str.strip, text.split(","))):
        name, _, number = part.partition("=")
        try:
            value = float(number)
        except ValueError:
            value = -1.0
        if name not in NEEDS or not 0 <= value < float("inf"):
            raise MagnetError(
                "--needs",
                expected="cpus=2,gpus=0.5,memory=16, or some of them",
                found=f"'{part}'",
                remedy="give numbers of 0 or more; memory is in GiB",
            )
        values[NEEDS[name]] = value
    return Needs(**values)

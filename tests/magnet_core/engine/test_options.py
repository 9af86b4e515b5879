from types import ModuleType

import pytest

from magnet_core.engine import options
from magnet_core.engine.local import LocalEngine
from magnet_core.engine.options import EngineName, choose_engine, parse_needs
from magnet_core.engine.ray_cluster import RayEngine
from magnet_core.engine.shard import Shard
from magnet_core.engine.tasks import Needs
from magnet_core.errors import MagnetError, MissingExtraError


def test_the_engine_is_the_one_that_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    assert choose_engine(EngineName.LOCAL, jobs=3, address=None, needs=None) == LocalEngine(3)
    monkeypatch.setattr(options, "require_ray", lambda: ModuleType("ray"))
    of_ray = choose_engine(EngineName.RAY, jobs=1, address="auto", needs="cpus=2, gpus=0.25,memory=16")
    assert of_ray == RayEngine("auto", Needs(cpus=2, gpus=0.25, memory_gib=16))


@pytest.mark.parametrize(
    ("name", "options", "said"),
    [
        (
            "local",
            {"address": "auto"},
            r"^--address: expected it with --engine ray, found --engine local; leave it out$",
        ),
        ("local", {"needs": "cpus=1"}, r"^--needs: expected it with --engine ray"),
        ("ray", {"jobs": 2}, r"^--jobs: expected it with --engine local, found --engine ray"),
    ],
)
def test_options_of_the_other_engine_are_an_error(name: str, options: dict[str, object], said: str) -> None:
    with pytest.raises(MagnetError, match=said):
        choose_engine(EngineName(name), **{"jobs": 1, "address": None, "needs": None, **options})  # type: ignore[arg-type]


@pytest.mark.parametrize("text", ["cpu=1", "cpus", "cpus=many", "gpus=-1", "memory=inf", "cpus=nan"])
def test_needs_that_make_no_sense_are_an_error(text: str) -> None:
    with pytest.raises(MagnetError, match=rf"^--needs: expected cpus=2,gpus=0.5,memory=16.*found '{text}'"):
        parse_needs(text)


def test_without_ray_one_line_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "ray", None)
    with pytest.raises(MissingExtraError, match=r"--engine ray: .* pip install 'magnet-hd\[cluster\]'$"):
        choose_engine(EngineName.RAY, jobs=1, address=None, needs=None)


@pytest.mark.parametrize("count", [1, 3, 8])
def test_the_parts_are_all_items_each_once(count: int) -> None:
    parts = [Shard(number, count).of(range(7)) for number in range(1, count + 1)]
    assert sorted(item for part in parts for item in part) == list(range(7))
    assert max(map(len, parts)) - min(map(len, parts)) <= 1
    assert str(Shard.parse(f" 1/{count}")) == f"1/{count}"


@pytest.mark.parametrize("text", ["", "3", "0/2", "3/2", "1/0", "-1/2", "1/2/3", "a/b"])
def test_a_part_that_makes_no_sense_is_an_error(text: str) -> None:
    with pytest.raises(MagnetError, match=r"^--shard: expected I/N, a part from 1 to N.*SLURM_ARRAY_TASK_ID"):
        Shard.parse(text)

"""A run gives the same store whatever engine spreads it, and one slide's fault or loss is that slide's alone."""

import os
import re
import shutil
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
import pytest

from cache.reader import ArrayFile
from cache.store import Store
from extract.config import EmbeddingConfig, GeometryConfig, RunConfig
from extract.pipeline import RunSummary, run
from extract.preflight import accept
from magnet_core.engine.local import LocalEngine
from magnet_core.engine.ray_cluster import RayEngine
from magnet_core.engine.shard import Shard
from magnet_core.engine.tasks import Engine
from magnet_core.errors import MagnetError, PlaceError
from tests.nodes import two_nodes


def config(samples: Path, store: Path) -> RunConfig:
    return RunConfig(
        samples=samples,
        store=store,
        geometry=GeometryConfig(bins=100, spots=20, window=8),
        embedding=EmbeddingConfig(backbone="timm:test_convnext", weights="random", token_grid=2),
    )


@pytest.fixture(scope="module")
def store(small_samples: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What one process makes."""
    root = tmp_path_factory.mktemp("store")
    assert run(config(small_samples, root)).written == ["S1", "S2"]
    return root


def contents(store: Path) -> dict[str, bytes]:
    """All arrays of a store and their headers, by file and name."""
    found = {}
    for path in sorted(store.rglob("*.lmdb")):
        with ArrayFile(path) as file:
            name = str(path.relative_to(store))
            found[name] = str(sorted(file.header.items())).encode()
            found |= {f"{name}/{array}": np.ascontiguousarray(file.read(array)).tobytes() for array in file.names()}
    return found


def assert_equal(one: Path, other: Path) -> None:
    assert contents(one) == contents(other)
    assert Store(one).samples() == Store(other).samples()


def test_two_processes_make_the_store_of_one(small_samples: Path, store: Path, tmp_path: Path) -> None:
    settings = config(small_samples, tmp_path / "store")
    assert run(settings, engine=LocalEngine(2)) == RunSummary(written=["S1", "S2"], patches=patches_of(store))
    assert_equal(tmp_path / "store", store)


def test_parts_make_the_store_of_one(small_samples: Path, store: Path, tmp_path: Path) -> None:
    settings = config(small_samples, tmp_path / "store")
    for number, slide_id in (2, "S2"), (1, "S1"):
        assert run(settings, accept(settings, Shard(number, 2))).written == [slide_id]
    assert_equal(tmp_path / "store", store)
    assert accept(settings, Shard(3, 3)).samples == ()


@contextmanager
def engine_of(name: str) -> Iterator[Engine]:
    """Two processes, or two nodes."""
    if name == "local":
        yield LocalEngine(2)
        return
    with two_nodes() as nodes:
        yield RayEngine(nodes.address)


@pytest.mark.parametrize("engine", ["local", pytest.param("ray", marks=pytest.mark.slow)])
def test_a_fault_in_another_process_is_one_line_of_its_slide(
    small_samples: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, engine: str
) -> None:
    sheet = tmp_path / "samples.csv"
    shutil.copytree(small_samples.parent, tmp_path, dirs_exist_ok=True)
    next((tmp_path / "S1").rglob("*.btf")).write_bytes(b"no picture")
    with engine_of(engine) as chosen:
        summary = run(config(sheet, tmp_path / "store"), engine=chosen)
    assert (summary.written, list(summary.failed)) == (["S2"], ["S1"])
    (line,) = [record.getMessage() for record in caplog.records if record.levelname == "ERROR"]
    assert line == f"failed: S1: {summary.failed['S1']}"
    assert "\n" not in line
    assert "expected" in line


@pytest.mark.parametrize("jobs", [1, 2])
def test_weights_that_are_not_there_are_told_of_before_anything_is_done(
    small_samples: Path, tmp_path: Path, jobs: int
) -> None:
    settings = config(small_samples, tmp_path / "store")
    settings = settings.changed(embedding={"weights": str(tmp_path / "weights.pt")})
    with pytest.raises(MagnetError, match=r"weights\.pt"):
        run(settings, engine=LocalEngine(jobs))
    assert not (tmp_path / "store").exists()


def test_an_image_with_two_names_is_refused_under_the_second(small_samples: Path, tmp_path: Path) -> None:
    lines = small_samples.read_text().splitlines()
    sheet = small_samples.with_name("twice.csv")
    sheet.write_text("\n".join([*lines, lines[1].replace("S1", "again", 1)]) + "\n")
    summary = run(config(sheet, tmp_path / "store"), engine=LocalEngine(2))
    assert (summary.written, list(summary.failed)) == (["S1", "S2"], ["again"])
    assert "an image that no other slide of the store has, found that of 'S1'" in summary.failed["again"]


@pytest.mark.slow
def test_two_nodes_make_the_store_of_one_though_a_process_is_killed(
    small_samples: Path, store: Path, tmp_path: Path
) -> None:
    settings = config(small_samples, tmp_path / "store")
    killer = threading.Thread(target=kill_one_at_work, args=(settings.store,))
    killer.start()
    with two_nodes() as nodes:
        summary = run(settings, engine=RayEngine(nodes.address))
    killer.join()
    assert summary == RunSummary(written=["S1", "S2"], patches=summary.patches)
    assert_equal(settings.store, store)


@pytest.mark.slow
def test_a_disk_that_is_full_on_one_node_ends_the_run_with_a_line_and_the_next_one_makes_it_whole(
    small_samples: Path, store: Path, tmp_path: Path
) -> None:
    settings = config(small_samples, tmp_path / "store")
    (tmp_path / "sitecustomize.py").write_text(LIMITING)  # each process of that node runs it as it starts
    with two_nodes(second={"LIMIT_BYTES": "300000", "PYTHONPATH": f"{tmp_path}:{Path.cwd()}"}) as nodes:
        with pytest.raises(PlaceError) as caught:
            run(settings, engine=RayEngine(nodes.address))
        assert re.search(
            r"store/S[12]/\S+: (Input/output error|File too large); .* give the same command again", str(caught.value)
        )
        assert "\n" not in str(caught.value)
    assert run(settings).failed == {}
    assert_equal(settings.store, store)


LIMITING = """
import os, resource
if "ray::" in " ".join(os.sys.orig_argv) or "default_worker" in " ".join(os.sys.orig_argv):
    resource.setrlimit(resource.RLIMIT_FSIZE, (int(os.environ["LIMIT_BYTES"]),) * 2)
"""


def kill_one_at_work(store: Path) -> None:
    """Kill a process of Ray's that has begun to write a slide."""
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        if any(store.rglob("*.lmdb.partial")):
            for folder in Path("/proc").glob("[0-9]*"):
                with suppress(OSError):
                    if "ray::_run" in (folder / "cmdline").read_text():
                        os.kill(int(folder.name), signal.SIGKILL)
                        return
        time.sleep(0.02)
    pytest.fail("nothing was at work")


def patches_of(store: Path) -> int:
    """Rows of all levels, each of which was a patch."""
    return sum(
        len(ArrayFile(path).read(name))
        for path in store.rglob("geometry.lmdb")
        for name in ArrayFile(path).names()
        if name.endswith("/centres_um")
    )

"""A store without pixels serves what reads features, and gets them from a later run; a read-only store is read."""

import errno
import os
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from cache.lock import FileLock
from cache.reader import ArrayFile
from cache.store import Store
from extract import pipeline
from extract.cli import app
from extract.config import EmbeddingConfig, GeometryConfig, RunConfig
from extract.pipeline import run
from extract.plan import plan_run
from magnet_core.errors import PlaceError
from tests.cache.test_begun import keys


def config(samples: Path, store: Path, *, pixels: bool = True, tokens: int = 1) -> RunConfig:
    return RunConfig(
        samples=samples,
        store=store,
        geometry=GeometryConfig(bins=30, spots=8, window=4, targets=(8, 55), context_hops=0),
        embedding=EmbeddingConfig(backbone="timm:test_convnext", weights="random", token_grid=tokens),
        slides=("S1",),
        pixels=pixels,
    )


def contents(path: Path) -> dict[str, np.ndarray]:
    with ArrayFile(path) as file:
        assert file.verify() == []
        return {name: file.read(name) for name in file.names()}


def assert_same(one: dict[str, np.ndarray], other: dict[str, np.ndarray]) -> None:
    assert one.keys() == other.keys()
    for name, values in one.items():
        np.testing.assert_array_equal(values, other[name], err_msg=name)


@pytest.fixture(scope="module")
def whole(small_samples: Path, tmp_path_factory: pytest.TempPathFactory) -> Store:
    root = tmp_path_factory.mktemp("whole")
    assert run(config(small_samples, root)).written == ["S1"]
    return Store(root)


def test_without_pixels_all_else_is_the_same_and_a_later_run_adds_them_alone(
    whole: Store, small_samples: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    without, complete = config(small_samples, tmp_path, pixels=False), config(small_samples, tmp_path)
    (planned,) = plan_run(without).slides
    assert run(without).written == ["S1"]
    store = Store(tmp_path)
    path, (features,), (expected,) = store.geometry_path("S1"), store.feature_files("S1"), whole.feature_files("S1")
    of_whole = contents(whole.geometry_path("S1"))
    pixels = {name for name in of_whole if name.endswith("/pixels")}
    assert pixels == {"bin_008um/pixels", "spot/pixels"}
    assert_same(contents(path), {name: values for name, values in of_whole.items() if name not in pixels})
    assert_same(contents(features.path), contents(expected.path))
    assert (features.path.name, features.geometry_digest) == (expected.path.name, expected.geometry_digest)
    assert planned.pixels == sum(of_whole[name].nbytes for name in pixels)
    assert f"{planned.pixels / 2**20:.1f} MiB less than with pixels" in planned.line()
    assert planned.nbytes == sum(array.nbytes for file in (path, features.path) for array in stored(file))
    assert run(without).unchanged == ["S1"]

    (lacking,) = plan_run(complete).slides
    assert (lacking.nbytes, lacking.encode) == (planned.pixels, 0)
    assert "of it pixels" in lacking.line()
    written = features.path.stat().st_mtime_ns
    monkeypatch.setattr(pipeline, "read_counts", lambda _: pytest.fail("counts were read again"))
    stop_before_the_pixels(complete, monkeypatch)
    assert run(without).unchanged == ["S1"]  # what is there stays whole meanwhile
    assert run(complete).written == ["S1"]
    assert_same(contents(path), of_whole)
    assert keys(path) == keys(whole.geometry_path("S1"))
    with ArrayFile(path) as geometry, ArrayFile(whole.geometry_path("S1")) as other:
        assert geometry.header == other.header
    assert features.path.stat().st_mtime_ns == written
    assert run(complete).unchanged == run(without).unchanged == ["S1"]


def stop_before_the_pixels(settings: RunConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(pipeline, "pour", stop)
        with pytest.raises(KeyboardInterrupt):
            run(settings)


def stored(path: Path) -> list[np.ndarray]:
    with ArrayFile(path) as file:
        return [np.empty(file.spec(name).shape, file.spec(name).dtype) for name in file.names()]


def test_a_run_without_pixels_that_was_stopped_goes_on_without_reading_counts(
    small_samples: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    without = config(small_samples, tmp_path, pixels=False)
    stop_before_the_pixels(without, monkeypatch)
    monkeypatch.setattr(pipeline, "read_counts", lambda _: pytest.fail("counts were read again"))
    assert run(without).written == ["S1"]


def make_read_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the system refuse whatever writes to a store, as a read-only mount does, whose checks even root meets."""

    def refuse(*_: object, **__: object) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS), "store")

    access = os.access
    monkeypatch.setattr(os, "access", lambda path, mode: mode != os.W_OK and access(path, mode))
    monkeypatch.setattr(FileLock, "acquire", refuse)
    monkeypatch.setattr("extract.run_summary.write_json", refuse)
    monkeypatch.setattr("cache.index.write_sealed", refuse)


def arguments(samples: Path, store: Path, tokens: int) -> list[str]:
    options = ["--samples", str(samples), "--store", str(store), "--backbone", "timm:test_convnext", "--slide", "S1"]
    rows = ["--bins", "30", "--spots", "8", "--targets", "8,55", "--set", "geometry.window=4"]
    return ["run", *options, "--weights", "random", "--tokens", str(tokens), *rows, "--set", "geometry.context_hops=0"]


def test_a_finished_run_on_a_read_only_store_says_that_nothing_is_to_do(
    whole: Store, small_samples: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_read_only(monkeypatch)
    told = CliRunner().invoke(app, arguments(small_samples, whole.root, 1))
    assert told.exit_code == 0
    assert "already there with these settings, nothing to do: S1" in told.stdout
    assert "no record of this run, as none can be written there" in told.stdout


def test_something_to_do_on_a_read_only_store_is_one_line_and_can_be_planned(
    whole: Store, small_samples: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_read_only(monkeypatch)
    told = CliRunner().invoke(app, arguments(small_samples, whole.root, 2))
    assert isinstance(told.exception, PlaceError)
    assert str(told.exception).startswith(f"{whole.root}: expected a store that can be written to, as something is to")
    planned = CliRunner().invoke(app, [*arguments(small_samples, whole.root, 2), "--dry-run"])
    assert planned.exit_code == 0
    assert "nothing was written" in planned.stdout

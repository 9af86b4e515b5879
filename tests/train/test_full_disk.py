"""A disk that fills up, or a folder that cannot be written: one line, and the same command goes on later.

The disk is full where a file would grow beyond a limit that the process sets itself, which needs no rights.
"""

import errno
import resource
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from optuna.exceptions import StorageInternalError
from sqlalchemy.exc import SQLAlchemyError

from cache.store import Store
from magnet_core.console import run_command
from magnet_core.environment import known_fault
from tests.train.setting import config
from tests.train.sweep.setting import sweep_of
from train.pipeline import TableResult, fit
from train.settings.fit import FitConfig
from train.sweep.run import run_sweep

LIMITS = (0, 3_000, 30_000, 90_000)  # bytes of a file; each meets another one first


def small(store: Store, runs: Path) -> FitConfig:
    settings = ("encoder.mode=frozen", "validation.few=hold_out", "compute.checkpoint_minutes=0", "baselines=false")
    return config(store, runs, *settings, "name=one", "split.file=" + str(runs / "folds.json"))


@contextmanager
def files_limited_to(limit: int) -> Iterator[None]:
    """Let no file of this process grow beyond so many bytes."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def faults_of(work: object, limits: tuple[int, ...] = LIMITS) -> list[str]:
    """What is told of each limit that stops the work, until one does not."""
    told = []
    for limit in limits:
        with files_limited_to(limit):
            try:
                work()  # type: ignore[operator]
            except (OSError, RuntimeError, SQLAlchemyError, StorageInternalError) as error:
                line = known_fault(error)
                assert line is not None, repr(error)  # noqa: PT017
                told.append(line)
    return told


@pytest.fixture(scope="module")
def whole(small_store: Store, tmp_path_factory: pytest.TempPathFactory) -> TableResult:
    return fit(small(small_store, tmp_path_factory.mktemp("whole") / "runs"))


def test_a_fit_on_full_disks_ends_as_if_it_had_had_room(whole: TableResult, small_store: Store, tmp_path: Path) -> None:
    told = faults_of(lambda: fit(small(small_store, tmp_path / "runs")))
    assert len(told) >= 3
    assert all(line.startswith(str(tmp_path)) or "File too large" in line for line in told)
    result = fit(small(small_store, tmp_path / "runs"))
    assert result.text.replace(str(tmp_path), "") == whole.text.replace(str(whole.folder.parent.parent), "")
    for name in ("model.safetensors", "genes.parquet"):
        assert (result.cell().folder / name).read_bytes() == (whole.cell().folder / name).read_bytes()
    assert not list((tmp_path / "runs").rglob("*.partial"))


def test_a_sweep_on_full_disks_goes_on_and_no_trial_is_blamed(small_store: Store, tmp_path: Path) -> None:
    sweep = sweep_of(small_store, tmp_path / "runs", epochs=1, settings="validation.share = 0.5")
    told = faults_of(lambda: run_sweep(sweep, trials=2), (0, 3_000, 60_000))
    assert told
    result = run_sweep(sweep, trials=2)
    assert result.finished == 2
    trials = (result.folder / "trials.csv").read_text()
    assert "refused" not in trials
    again = sweep_of(small_store, tmp_path / "whole", epochs=1, settings="validation.share = 0.5")
    assert run_sweep(again, trials=2).values == result.values


@pytest.mark.parametrize("command", ["report", "predict"])
def test_a_command_on_a_full_disk_says_one_line(
    command: str,
    whole: TableResult,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    out = tmp_path / ("page.html" if command == "report" else "S1.h5ad")
    slide = [] if command == "report" else ["--slide", "S1", "--quiet"]
    monkeypatch.setattr(sys, "argv", ["train", command, str(whole.folder), *slide, "--out", str(out)])
    with files_limited_to(2_000), pytest.raises(SystemExit) as end:
        run_command("train.cli")
    assert end.value.code == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"error: {out}: File too large; raise the limit of file sizes")
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(SystemExit) as end:
        run_command("train.cli")
    assert end.value.code == 0
    assert out.exists()


def test_a_folder_that_cannot_be_written_is_one_line(
    small_store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(path: Path, *_: object, **__: object) -> None:
        raise OSError(errno.EROFS, "Read-only file system", str(path))

    runs = tmp_path / "runs"
    monkeypatch.setattr(Path, "mkdir", refuse)
    options = ["--store", str(small_store.root), "--backbone", "timm:test_convnext", "--runs", str(runs), "--quiet"]
    monkeypatch.setattr(sys, "argv", ["train", "fit", *options])
    with pytest.raises(SystemExit) as end:
        run_command("train.cli")
    assert end.value.code == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line == f"error: {runs}: Read-only file system; name a folder that can be written"

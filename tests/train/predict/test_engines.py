"""Predictions are the same whatever engine spreads the slides; parts are all slides, each once."""

import shutil
from pathlib import Path

import anndata
import numpy as np
import pytest
from typer.testing import CliRunner, Result

from cache.store import Store
from tests.train.setting import config
from train.cli import app
from train.pipeline import fit


@pytest.fixture(scope="module")
def run(small_store: Store, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run whose slides one process has predicted."""
    settings = ("data.target=55", "encoder.mode=frozen", "baselines=false", "optim.epochs=1")
    folder = fit(config(small_store, tmp_path_factory.mktemp("runs"), *settings)).folder
    assert predict(folder, "--slide", "all").exit_code == 0
    (folder / "predictions").rename(folder / "alone")
    return folder


@pytest.fixture(autouse=True)
def nothing_predicted(run: Path) -> None:
    """Each test begins anew."""
    shutil.rmtree(run / "predictions", ignore_errors=True)


def predict(run: Path, *options: str) -> Result:
    return CliRunner().invoke(app, ["predict", str(run), *options], catch_exceptions=False)


def assert_equal_to_alone(run: Path) -> None:
    names = sorted(path.name for path in (run / "alone").iterdir())
    assert names == sorted(path.name for path in (run / "predictions").iterdir()) == ["S1.h5ad", "S2.h5ad", "S3.h5ad"]
    for name in names:
        one, other = (anndata.read_h5ad(run / folder / name) for folder in ("alone", "predictions"))
        np.testing.assert_array_equal(one.X, other.X)
        assert one.obs_names.equals(other.obs_names)


def test_two_processes_predict_what_one_does(run: Path) -> None:
    done = predict(run, "--slide", "all", "--jobs", "2")
    assert done.exit_code == 0
    assert sorted(line[:3] for line in done.stdout.splitlines() if " -> " in line) == ["S1:", "S2:", "S3:"]
    assert_equal_to_alone(run)


def test_parts_predict_what_one_command_does(run: Path) -> None:
    for part in "2/2", "1/2":
        assert predict(run, "--slide", "all", "--shard", part).exit_code == 0
    assert_equal_to_alone(run)


def test_a_fault_in_another_process_is_one_line_and_the_others_are_predicted(
    run: Path, small_store: Store, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    shutil.copytree(small_store.root, tmp_path / "store")
    (features,) = (tmp_path / "store" / "S2").glob("timm*.lmdb")
    features.unlink()
    done = predict(run, "--slide", "all", "--jobs", "2", "--store", str(tmp_path / "store"))
    assert done.exit_code == 1
    assert "failed: S2 (the reasons are above)" in done.stderr
    (line,) = [record.getMessage() for record in caplog.records if record.levelname == "ERROR"]
    assert line.startswith("failed: S2: ")
    assert "\n" not in line
    assert sorted(path.name for path in (run / "predictions").glob("*.h5ad")) == ["S1.h5ad", "S3.h5ad"]

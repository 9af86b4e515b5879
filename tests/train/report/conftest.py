"""Results of two folds that maps and figures are drawn of, computed once."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from cache.store import Store
from tests.train.setting import config
from train.data.fold_choice import choose_folds
from train.pipeline import make_table
from train.studies.plans import Planner
from train.studies.settings import StudyConfig


@pytest.fixture(scope="session")
def mapped(small_store: Store, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a table of two folds, MagNet and two plain baselines at 8 and 55 µm."""
    runs = tmp_path_factory.mktemp("mapped") / "runs"
    study = StudyConfig(fit=config(small_store, runs, "encoder.mode=frozen", "optim.epochs=1"))
    planner = Planner(study, choose_folds(study.fit, (0, 1)))
    plan = planner.baselines((8, 55), ("colour_ridge", "magnet", "gene_mean"), name="table", title="Systems & maps")
    return make_table(plan, study).folder


@pytest.fixture
def copy_of(tmp_path: Path) -> Callable[[Path], Path]:
    """Copies a table with its cells, which a test may then change."""

    def copied(folder: Path) -> Path:
        return Path(shutil.copytree(folder.parent, tmp_path / "runs")) / folder.name

    return copied

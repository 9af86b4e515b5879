"""A table is the same whatever engine spreads its cells; a cell's fault in another process is its own line."""

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from cache.store import Store
from magnet_core.engine.local import LocalEngine
from magnet_core.engine.ray_cluster import RayEngine
from magnet_core.engine.shard import Shard
from magnet_core.paths import STAGE_TO
from tests.nodes import two_nodes
from tests.train.setting import config
from train.data.fold_choice import choose_folds
from train.pipeline import make_part, make_table, run_cells
from train.studies.plans import Plan, Planner
from train.studies.settings import StudyConfig


def planned(store: Store, runs: Path) -> tuple[Plan, StudyConfig]:
    """MagNet and a plain baseline on two folds."""
    study = StudyConfig(fit=config(store, runs, "encoder.mode=frozen", "optim.epochs=1"))
    planner = Planner(study, choose_folds(study.fit, (0, 1)))
    return planner.baselines([55], ("magnet", "gene_mean"), name="table", title="A table"), study


@pytest.fixture(scope="module")
def alone(small_store: Store, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What one process makes."""
    runs = tmp_path_factory.mktemp("alone")
    assert make_table(*planned(small_store, runs)).faults == ()
    return runs


def assert_equal(one: Path, other: Path) -> None:
    names = sorted(path.relative_to(one) for path in (one / "cells").rglob("*.npy"))
    assert len(names) == 4
    for name in names:
        np.testing.assert_array_equal(np.load(one / name), np.load(other / name), err_msg=str(name))
    assert (one / "table" / "table.csv").read_text() == (other / "table" / "table.csv").read_text()


def test_two_processes_make_the_table_of_one(small_store: Store, alone: Path, tmp_path: Path) -> None:
    plan, study = planned(small_store, tmp_path)
    assert make_table(plan, study, engine=LocalEngine(2)).faults == ()
    assert_equal(alone, tmp_path)


def test_parts_are_computed_apart_and_the_table_without_computing(
    small_store: Store, alone: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan, study = planned(small_store, tmp_path)
    parts = [make_part(plan, study, Shard(number, 3)) for number in (3, 1, 2)]
    assert [len(part.cells) for part in parts] == [2, 2, 2]
    assert not (tmp_path / "table").exists()
    monkeypatch.setattr("train.pipeline.compute", lambda *_: pytest.fail("a cell was computed again"))
    assert make_table(plan, study).faults == ()
    assert_equal(alone, tmp_path)


@pytest.mark.slow
def test_two_nodes_make_the_table_of_one(small_store: Store, alone: Path, tmp_path: Path) -> None:
    plan, study = planned(small_store, tmp_path)
    with two_nodes() as nodes:
        assert make_table(plan, study, engine=RayEngine(nodes.address)).faults == ()
    assert_equal(alone, tmp_path)


def test_a_cell_that_fails_in_another_process_is_one_line_and_the_others_are_computed(
    small_store: Store, tmp_path: Path
) -> None:
    plan, _ = planned(small_store, tmp_path)
    right, wrong = (cell for row in plan.rows for cell in row.cells if cell.system == "magnet")
    wrong = replace(wrong, config=wrong.config.changed(optim={"lr": 1e30, "clip_norm": 0.0}))
    results = run_cells([right, wrong], tmp_path, engine=LocalEngine(2))
    assert list(results.faults) == [wrong]
    assert re.match(rf"{re.escape(wrong.title)}: step 1, .*: expected a finite loss, found nan", results.faults[wrong])
    assert "\n" not in results.faults[wrong]
    assert list(results.cells) == [right]


def test_copies_on_another_disk_make_the_same_table(
    small_store: Store, alone: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(STAGE_TO, str(tmp_path / "local"))
    assert make_table(*planned(small_store, tmp_path)).faults == ()
    assert len(list((tmp_path / "local").glob("S*.lmdb"))) == 6  # geometry and features of three slides
    assert_equal(alone, tmp_path)

"""What version 0.1 left is read for ever, or refused in one line: a fit, and a study with its cells."""

import json
import shutil
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch

from magnet_core.errors import MagnetError
from train.data.folds import Fold
from train.learning.trained_run import load_run
from train.places import our_cell, read_record
from train.report.page import write_report
from train.settings.fit import FitConfig, as_recorded
from train.studies.cell import Cell, read
from train.studies.plans import Plan
from train.studies.record import check_folder, other_settings
from train.studies.settings import StudyConfig
from train.systems.table import rivals_config

RUNS = Path(__file__).resolve().parents[1] / "data/runs_v1"
GENES = 4


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    """A copy, which a test may change."""
    return Path(shutil.copytree(RUNS, tmp_path / "runs"))


@pytest.mark.parametrize("folder", [RUNS / "fit", our_cell(RUNS / "study")], ids=["fit", "cell"])
def test_a_trained_run_is_loaded_and_has_its_weights(folder: Path) -> None:
    run = load_run(folder)
    assert len(run.panel) == run.predictor.model.num_genes == GENES
    assert run.config.model.width == 8
    assert all(torch.isfinite(value).all() for value in run.predictor.state_dict().values())
    assert any(value.abs().sum() > 0 for value in run.predictor.state_dict().values())


def test_what_came_later_is_read_as_it_was_meant_before() -> None:
    run = load_run(RUNS / "fit")
    assert (run.config.validation.few, run.config.validation.share) == ("none", 0.2)
    before = read_record(RUNS / "study")["config"]
    now = StudyConfig.build(
        {**before, "fit": {**before["fit"], "validation": {"few": "hold_out"}}}, where="study.json"
    ).plain()
    assert other_settings(before, now) == ["data.contexts", "data.own", "validation.few"]


def config_of(cell: Path) -> FitConfig:
    """The settings that a cell of before records."""
    return FitConfig.build(as_recorded(json.loads((cell / "cell.json").read_bytes())["settings"]), where="cell.json")


@pytest.mark.parametrize("system", ["magnet", "gene_mean"])
def test_a_cell_that_lies_in_the_folder_of_another_is_told_of_though_it_does_not_know_its_name(system: str) -> None:
    (folder,) = RUNS.glob(f"cells/{system}-*")
    fold, config = Fold(0, ("S1", "S3"), ("S2",)), config_of(folder)
    other = "gene_mean" if system == "magnet" else "magnet"
    for sought, says in [
        (Cell(other, config, fold, rivals_config()), "another system"),
        (Cell(system, config, Fold(1, ("S1", "S3"), ("S2",)), rivals_config()), "another fold"),
        (Cell(system, config, Fold(0, ("S1", "S2"), ("S3",)), rivals_config()), "another fold"),
        (Cell(system, config.changed(data={"panel": 9}), fold, rivals_config()), "another data.panel"),
    ]:
        with pytest.raises(MagnetError, match=f"expected the cell that it is named after, found one of {says}"):
            read(sought, folder)


def test_cells_are_read_with_predictions_and_sums() -> None:
    fold = Fold(0, ("S1", "S3"), ("S2",))
    for system in ("magnet", "gene_mean"):
        (folder,) = RUNS.glob(f"cells/{system}-*")
        result = read(Cell(system, config_of(folder), fold, rivals_config()), folder)
        assert len(result.panel) == GENES
        assert result.prediction("S2").shape[1] == GENES
        np.testing.assert_array_equal(result.genes["gene_id"].to_numpy(), result.panel.ids)
        assert result.patients.keys() == {"S2"}


def test_a_page_is_made_of_a_study(tmp_path: Path) -> None:
    page = write_report([RUNS / "study"], tmp_path / "report.html").read_text(encoding="utf-8")
    (magnet,) = pl.read_csv(RUNS / "study/table.csv").filter(pl.col("system") == "MagNet").to_dicts()
    assert f"{magnet['pcc_gene_mean']:.3f}" in page
    assert "MagNet: loss" in page or "loss" in page
    assert "last epoch kept: nothing held out" in page
    assert "validation.few" in page  # as it was meant then, which is no default any more


def test_a_fit_has_no_page_any_more_and_says_how_to_make_it_anew(tmp_path: Path) -> None:
    with pytest.raises(MagnetError, match=r"found a fit of version 0\.1; give 'train fit' with its settings again"):
        write_report([RUNS / "fit"], tmp_path / "report.html")


def test_a_fit_is_replaced_only_where_it_may_be(runs: Path) -> None:
    plan = Plan("fit", "", (), {})
    with pytest.raises(MagnetError, match="expected a new run, found a finished one; give another --name, or --over"):
        check_folder(runs, plan, StudyConfig(), replaces=False)
    assert (runs / "fit/model.safetensors").exists()
    check_folder(runs, plan, StudyConfig(), replaces=True)
    assert list((runs / "fit").iterdir()) == []


def test_a_table_that_was_copied_without_its_cell_says_what_to_copy_too(tmp_path: Path) -> None:
    folder = Path(shutil.copytree(RUNS / "study", tmp_path / "elsewhere/study"))
    with pytest.raises(MagnetError, match=r"study: expected its cell .*, found none there; copy cells/magnet-8um-"):
        load_run(folder)
    shutil.copytree(RUNS / "cells", tmp_path / "elsewhere/cells")
    assert len(load_run(folder).panel) == GENES


def test_a_setting_that_only_one_of_two_tables_knows_is_no_difference() -> None:
    now = StudyConfig().plain()
    before = {**now, "rivals": {"egn": now["rivals"]["egn"]}}
    assert other_settings(before, now) == []
    assert other_settings(before | {"fit": {**now["fit"], "seed": 1}}, now) == ["seed"]

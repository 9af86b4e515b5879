"""Several seeds of one system: the mean of their predictions is a cell of its own, made of theirs."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from typer.testing import CliRunner

from cache.store import Store
from magnet_core.errors import MagnetError
from magnet_core.settings import flat
from tests.train.setting import config
from train import pipeline
from train.cli import app
from train.data.fold_choice import choose_fold
from train.data.training_side import TrainingSide
from train.pipeline import fit, fit_system
from train.places import our_cells, trained_run
from train.report.page import write_report
from train.studies.cell import Cell, read
from train.systems.table import MAGNET, NOISE_CEILING, SYSTEMS, plain_systems, rivals_config


def test_the_mean_of_seeds_is_tested_and_each_seed_shown_and_shared_with_a_fit_of_it(
    small_store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fitted: list[Cell] = []

    def noted(cell: Cell, folder: Path, side: TrainingSide) -> Any:
        fitted.append(cell)
        return fit_system(cell, folder, side)

    monkeypatch.setattr(pipeline, "fit_system", noted)
    alone = fit(config(small_store, tmp_path, "seed=4", "name=alone", "baselines=false"))
    result = fit(config(small_store, tmp_path, "seed=3", "seeds=2", "name=both", "baselines=false"))
    assert [cell.config.seed for cell in fitted] == [4, 3]  # seed 4 was there

    ours = result.cell()
    members = [read(cell, cell.folder(ours.folder.parent, small_store)) for cell in ours.cell.members]
    assert members[1].folder == alone.cell().folder
    for slide_id in ours.cell.fold.test:
        each = [cell.prediction(slide_id) for cell in members]
        assert not np.array_equal(each[0], each[1])
        np.testing.assert_allclose(ours.prediction(slide_id), np.mean(each, axis=0), rtol=1e-6)

    table = pl.read_csv(result.folder / "table.csv")
    assert table["system"].to_list()[:3] == ["MagNet", "MagNet, seed 3 alone", "MagNet, seed 4 alone"]
    assert table["mse_mean"][2] == pytest.approx(alone.systems[MAGNET]["mse"])
    assert table["mse_mean"][0] == pytest.approx(result.systems[MAGNET]["mse"])
    assert table["mse_mean"][0] <= table["mse_mean"][1:3].mean()  # as of any mean of predictions
    assert "learnt systems: mean prediction of 2 trainings, seeds 3 to 4" in result.text

    assert our_cells(result.folder) == [cell.folder for cell in members]
    with pytest.raises(MagnetError, match="expected a run of one seed, found an ensemble of 2; pass --ensemble"):
        trained_run(result.folder)


def test_such_a_table_predicts_as_an_ensemble_and_its_page_shows_it(
    small_store: Store, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    result = fit(config(small_store, tmp_path, "seeds=2", "name=both", "baselines=false"))
    (slide_id,) = result.cell().cell.fold.test
    done = CliRunner().invoke(app, ["predict", str(result.folder), "--slide", slide_id, "--ensemble"])
    assert done.exit_code == 0, done.output
    write_report([result.folder], tmp_path / "report.html")
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "left out" not in caplog.text
    assert "0 to 1; their mean prediction is tested" in page
    assert "MagNet, seed 1 alone" in page


def test_what_has_no_seed_is_computed_once_and_one_seed_has_the_name_it_had(small_store: Store, tmp_path: Path) -> None:
    settings = config(small_store, tmp_path, "seeds=3", "seed=5")
    fold = choose_fold(settings)
    for system in (*SYSTEMS, NOISE_CEILING):
        cell = Cell(system, settings, fold, rivals_config())
        seeds = [member.config.seed for member in cell.members]
        assert seeds == ([] if system in (*plain_systems(), NOISE_CEILING) else [5, 6, 7])
        one = replace(cell, config=settings.changed(seeds=1))
        assert "seeds" not in flat(one.settings(["P1", "P2"]))
        named = {each.folder(tmp_path, small_store).name for each in (cell, one, *cell.members)}
        assert len(named) == (4 if seeds else 1)

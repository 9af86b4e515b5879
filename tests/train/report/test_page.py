import json
import re
import shutil
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import typer
from PIL import Image
from typer.testing import CliRunner

from cache.store import Store
from magnet_core.errors import MagnetError
from tests.train.report.reading import Page, read_page
from tests.train.setting import config, edited
from tests.train.sweep.setting import sweep_of
from train import pipeline
from train.commands.report import report_command
from train.data.fold_choice import choose_folds
from train.pipeline import fit, make_table, run_cells
from train.places import trained_run
from train.report.page import write_report
from train.studies.cell import Cell
from train.studies.plans import Plan, Planner
from train.studies.settings import StudyConfig
from train.sweep.run import run_sweep

SYSTEMS = ("gene_mean", "colour_ridge", "magnet")
METRICS = ("mse", "mae", "pcc_bin", "pcc_gene")


def planned(store: Store, runs: Path, systems: tuple[str, ...] = SYSTEMS) -> tuple[Plan, StudyConfig]:
    settings = config(store, runs, "encoder.mode=frozen", "optim.epochs=2", "data.panel=40")
    study = StudyConfig(fit=settings)
    planner = Planner(study, choose_folds(study.fit, (0, 1)))
    return planner.baselines((55, 8), systems, name="table", title="Systems <compared> & shown"), study


def page_of(*folders: Path, out: Path) -> tuple[str, Page]:
    text = write_report(folders, out / "report.html").read_text(encoding="utf-8")
    return text, read_page(text)


def copied(folder: Path, to: Path) -> Path:
    return Path(shutil.copytree(folder, to / folder.name))


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("reported") / "runs"


@pytest.fixture(scope="module")
def study(small_store: Store, runs: Path) -> Path:
    plan, settings = planned(small_store, runs)
    gene = run_cells(plan.cells, runs).cells[plan.rows[-1].cells[0]].panel.names[0]
    return make_table(plan, settings, genes=(str(gene),)).folder


@pytest.fixture(scope="module")
def fitted(small_store: Store, runs: Path) -> Path:
    return fit(config(small_store, runs, "encoder.mode=frozen", "data.panel=40", "name=one")).folder


@pytest.fixture(scope="module")
def sweep(small_store: Store, runs: Path) -> Path:
    return run_sweep(sweep_of(small_store, runs, epochs=1, settings="validation.share = 0.5"), trials=2).folder


def test_every_number_of_the_table_is_on_the_page(study: Path, tmp_path: Path) -> None:
    _, page = page_of(study, out=tmp_path)
    heading, *shown = page.rows("Systems")
    table = pl.read_csv(study / "table.csv").to_dicts()
    assert [row[1] for row in shown] == [row["system"] for row in table]
    assert heading[2:6] == ["MSE", "MAE", "PCC per bin", "PCC per gene"]
    for cells, row in zip(shown, table, strict=True):
        for place, name in enumerate(METRICS, start=2):
            mean, sd = row[f"{name}_mean"], row[f"{name}_sd"]
            assert cells[place] == ("–" if mean is None else f"{mean:.3f}±{sd:.3f}")
        if row["pcc_gene_low"] is not None:
            assert cells[6] == f"{row['pcc_gene_low']:.3f}…{row['pcc_gene_high']:.3f}"
        assert cells[7] == f"{row['of_ceiling']:.2f}"
        if row["ours_minus_system_mean"] is not None:
            assert cells[8].startswith(f"{row['ours_minus_system_mean']:+.3f} [")
        assert cells[9:] == [str(row["folds"]), str(row["slides"])]
    slides = pl.read_parquet(study / "slides.parquet")
    assert [row[4:] for row in page.rows("Test slides")[1:]] == [
        [f"{value:.3f}" for value in row] for row in slides.select(METRICS).iter_rows()
    ]


def test_the_page_says_which_epoch_was_kept(study: Path, tmp_path: Path) -> None:
    _, page = page_of(study, out=tmp_path)
    rows = page.rows("Kept epochs")[1:]
    assert [row[1:3] for row in rows] == [["MagNet", f"fold {fold}"] for _ in (55, 8) for fold in (0, 1)]
    why = "last epoch kept: nothing held out (a share of 0.2 of 2 patients is none, and validation.few=none)"
    assert {row[3] for row in rows} == {why}


def test_a_page_needs_nothing_from_elsewhere(study: Path, fitted: Path, sweep: Path, tmp_path: Path) -> None:
    whole, page = page_of(study, fitted, sweep, out=tmp_path)
    text = re.sub(r"(?s)<script.*?</script>", "", whole)  # what those ask for is seen in a browser
    assert "http://" not in text
    assert "https://" not in text
    assert not {"link", "iframe", "object"} & set(page.tags)
    addresses = [value for name, value in page.attributes if name in {"src", "href", "xlink:href", "data"}]
    assert {value.split(",")[0] for value in addresses} == {
        "data:image/png;base64", "#result-1", "#result-2", "#result-3"
    }  # fmt: skip
    assert "url(" not in text
    assert len(text) < 2_000_000
    assert len(whole) < 5_000_000
    assert [path.name for path in tmp_path.iterdir()] == ["report.html"]


def test_a_page_without_maps_has_no_script(study: Path, sweep: Path, tmp_path: Path) -> None:
    assert "script" not in page_of(sweep, out=tmp_path)[1].tags
    moved = copied(study, tmp_path)

    def without_cells(record: dict[str, Any]) -> None:
        for row in record["rows"]:
            row["cells"] = [f"gone/cells/{Path(cell).name}" for cell in row["cells"]]

    edited(moved / "study.json", without_cells)
    text, page = page_of(moved, out=tmp_path)
    assert "script" not in page.tags
    assert '<p class="soft">Without maps:</p>' in text
    assert "copy its cells (RUNS/cells) beside it, too" in text


def test_results_of_all_kinds_stand_side_by_side(study: Path, fitted: Path, sweep: Path, tmp_path: Path) -> None:
    _, page = page_of(study, fitted, sweep, out=tmp_path)
    rows = {(row[0], row[1]): row for row in page.rows("All results")}
    table = pl.read_csv(study / "table.csv").filter(pl.col("system") == "MagNet")
    for row in table.to_dicts():
        assert rows["table", row["group"]][7] == f"{row['pcc_gene_mean']:.3f}±{row['pcc_gene_sd']:.3f}"
    (magnet,) = pl.read_csv(fitted / "table.csv").filter(pl.col("system") == "MagNet").to_dicts()
    assert rows["one", "8 µm"][4:8] == [f"{magnet[f'{name}_mean']:.3f}" for name in METRICS]
    trials = pl.read_csv(sweep / "trials.csv")
    best = trials["pcc_gene"].max()
    assert isinstance(best, float)
    assert rows["sweep", "8 µm"][7] == f"{best:.3f}"
    assert "(validation)" in rows["sweep", "8 µm"][3]
    assert page.rows("Best trials")[1][1] == f"{best:.4f}"
    assert len(page.rows("Best trials")) == 1 + len(trials)


def test_a_fit_is_shown_with_its_interval_losses_and_genes(fitted: Path, tmp_path: Path) -> None:
    text, page = page_of(fitted, out=tmp_path)
    table = pl.read_csv(fitted / "table.csv")
    systems, ceiling = page.rows("Systems")[1:-1], page.rows("Systems")[-1]
    assert [row[1] for row in systems] == table["system"].to_list()[:-1]
    for row, values in zip(systems, table.to_dicts(), strict=False):
        assert row[2:6] == [f"{values[f'{name}_mean']:.3f}" for name in METRICS]
        assert row[6] == f"{values['pcc_gene_low']:.3f}…{values['pcc_gene_high']:.3f}"
        assert row[7] == f"{values['of_ceiling']:.2f}"
    assert ceiling[1] == "noise ceiling (upper bound)"
    losses = json.loads((trained_run(fitted) / "run.json").read_text())["losses"]
    assert f"MagNet, fold 0: {losses[-1]:.4g} at epoch {len(losses)}, kept" in page.titles
    genes = pl.read_parquet(fitted / "genes.parquet").filter(pl.col("system") == "MagNet").sort("pcc")
    listed = page.rows("Genes predicted best and worst: 8 µm, MagNet")
    assert listed[1][:2] == [genes["gene_name"][-1], f"{genes['pcc'][-1]:.3f}"]
    assert listed[17][:2] == [genes["gene_name"][0], f"{genes['pcc'][0]:.3f}"]
    assert "All results" not in text


def test_text_of_users_is_escaped(study: Path, tmp_path: Path) -> None:
    folder = copied(study, tmp_path)
    name = "<b>\"&'gene"
    genes = pl.read_parquet(folder / "genes.parquet").with_columns(gene_name=pl.lit(name) + pl.col("gene_id"))
    genes.write_parquet(folder / "genes.parquet")

    def change(record: dict[str, Any]) -> None:
        record["faults"] = ["<script>alert(1)</script>"]
        record["config"]["fit"]["data"]["store"] = "<i>store"

    edited(folder / "study.json", change)
    text, page = page_of(folder, out=tmp_path)
    assert not {"b", "i"} & set(page.tags)
    assert "<script>alert" not in text
    assert "&lt;b&gt;" in text
    assert "&lt;script&gt;alert(1)" in text
    assert "Systems &lt;compared&gt; &amp; shown" in text
    assert any(title.startswith(name) for title in page.titles)


def test_settings_that_differ_are_told_beside_their_defaults(study: Path, tmp_path: Path) -> None:
    text, page = page_of(study, out=tmp_path)
    differing = {row[0]: row[1:] for row in page.rows("Settings that differ from the defaults")}
    assert differing["optim.lr"] == ["0.003", "0.0001"]
    assert differing["data.panel"] == ["40", "250"]
    assert "optim.momentum" not in differing
    assert "optim.momentum = 0.9" in text


def test_a_study_that_was_moved_with_its_cells_keeps_its_losses(study: Path, tmp_path: Path) -> None:
    alone, moved = copied(study, tmp_path / "alone"), copied(study, tmp_path / "moved")

    def change(record: dict[str, Any]) -> None:
        for row in record["rows"]:
            row["cells"] = [f"gone/cells/{Path(cell).name}" for cell in row["cells"]]

    for folder in (alone, moved):
        edited(folder / "study.json", change)
    shutil.copytree(study.parent / "cells", moved.parent / "cells")
    assert ", kept" in page_of(moved, out=tmp_path)[0]
    assert ", kept" not in page_of(alone, out=tmp_path)[0]


def test_maps_are_inside_as_far_as_a_page_stays_small(
    study: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = copied(study, tmp_path)
    (there, *_) = sorted(folder.glob("maps-*.png"))
    Image.effect_noise((1500, 1500), 90).convert("RGB").save(folder / "maps-ZZZ-8um.png")
    monkeypatch.setattr("train.report.page.PICTURE_BYTES", 600_000)
    text, page = page_of(folder, out=tmp_path)
    assert there.stem.removeprefix("maps-").split("-")[0] in {
        value for row in page.rows("Single genes") for value in row
    }
    assert page.tags.count("img") == len(list(study.glob("maps-*.png")))
    assert "to keep this page small: maps-ZZZ-8um.png" in text


def test_what_failed_is_told(small_store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def failing(cell: Cell, folder: Path, **options: object) -> object:
        raise MagnetError(cell.title, expected="luck", found="none", remedy="try again")

    build = pipeline.build_system
    monkeypatch.setattr(pipeline, "build_system", failing)
    plan, settings = planned(small_store, tmp_path / "runs", ("gene_mean", "colour_ridge"))
    nothing = make_table(plan, settings)
    text, page = page_of(nothing.folder, out=tmp_path)
    assert "gene mean, 55 µm, fold 0: expected luck" in text
    assert [row[2] for row in page.rows("Systems")[1:]] == ["–"] * 6
    monkeypatch.setattr(pipeline, "build_system", build)
    whole, _ = page_of(make_table(plan, settings).folder, out=tmp_path)
    assert "expected luck" not in whole
    assert "<li>nothing</li>" in whole


def test_a_folder_without_a_finished_result_is_one_line(study: Path, fitted: Path, tmp_path: Path) -> None:
    out = tmp_path / "page.html"
    with pytest.raises(MagnetError, match="none: expected the folder of a result, found no folder"):
        write_report([tmp_path / "none"], out)
    with pytest.raises(MagnetError, match=r"study.json \(of train fit, cv or study\), sweep.json \(of train sweep\)"):
        write_report([study, tmp_path], out)
    with pytest.raises(MagnetError, match=f"found none of them; name a result in it: .*{study.name}"):
        write_report([study.parent], out)
    folder = copied(study, tmp_path)
    (folder / "genes.parquet").unlink()
    with pytest.raises(MagnetError, match="table: expected a finished result with genes.parquet, found no such file"):
        write_report([folder], out)
    folder = copied(fitted, tmp_path)
    (folder / "study.json").write_text("{")
    with pytest.raises(MagnetError, match="study.json: expected study.json of a finished result, found"):
        write_report([folder], out)
    (folder / "study.json").write_text('{"title": ""}')
    with pytest.raises(MagnetError, match="study.json: expected title, rows, folds, config, found no rows, folds, con"):
        write_report([folder], out)
    folder = copied(study, tmp_path / "again")
    pl.read_csv(folder / "table.csv").drop("mse_sd").write_csv(folder / "table.csv")
    with pytest.raises(MagnetError, match=r"table\.csv: expected the bytes that were written, found others.*; delete "):
        write_report([folder], out)
    edited(folder / "study.json", lambda _: None)
    with pytest.raises(MagnetError, match="found no mse_sd; run its command again"):
        write_report([folder], out)
    assert not out.exists()


def test_the_command_writes_the_page_and_says_where(fitted: Path, tmp_path: Path) -> None:
    app = typer.Typer()
    app.command()(report_command)
    out = tmp_path / "there" / "page.html"
    result = CliRunner().invoke(app, [str(fitted), "--out", str(out)], catch_exceptions=False)
    assert result.exit_code == 0
    assert f"report: {out}" in result.output
    read_page(out.read_text(encoding="utf-8"))


def test_folders_that_share_a_name_are_told_apart_by_their_paths(fitted: Path, tmp_path: Path) -> None:
    other = copied(fitted, tmp_path / "moved")
    text, page = page_of(fitted, other, out=tmp_path)
    assert {row[0] for row in page.rows("All results")[1:]} == {str(fitted), str(other)}

import json
import os
import re
import socket
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from cache.lock import FileLock
from cache.store import Store
from magnet_core.console import NOTICE
from magnet_core.errors import MagnetError
from magnet_core.levels import find_target
from magnet_core.metrics import evaluate
from tests.train.setting import small_study
from train import pipeline
from train.data import fold_choice
from train.data.fold_choice import choose_folds, targets_of
from train.data.fold_sides import FoldSides, open_fold
from train.data.slide import open_slide_data
from train.data.training_side import TrainingSide
from train.evaluation.scores import DISPERSION, LOW_CEILING
from train.pipeline import make_table, run_cells
from train.places import CELL
from train.studies import pivotal
from train.studies.ceiling_note import low_ceiling_note
from train.studies.cell import Cell, Results
from train.studies.configure import configure
from train.studies.figures import Map
from train.studies.plans import Plan, Planner
from train.studies.render import render
from train.studies.request import StudyRequest
from train.studies.settings import StudyConfig, load_study_config
from train.studies.summary import Line, Statistic, genes_of
from train.systems.plain.ridge import ColourRidge

SYSTEMS = ("magnet", "gene_mean", "colour_ridge")


def planned(study: StudyConfig, *, targets: tuple[int, ...] = (55,), systems: tuple[str, ...] = SYSTEMS) -> Plan:
    planner = Planner(study, choose_folds(study.fit, (0, 1)))
    return planner.baselines(targets, systems, name="table", title="A table")


def test_the_table_is_the_mean_over_folds_of_metrics_of_the_kept_predictions(
    small_store: Store, tmp_path: Path
) -> None:
    study = small_study(small_store, tmp_path)
    plan = planned(study)
    result = make_table(plan, study)
    assert result.faults == ()
    table = pl.read_csv(result.folder / "table.csv")
    assert table["system"].to_list() == ["MagNet", "gene mean", "colour ridge", "noise ceiling (upper bound)"]
    found: dict[str, list[float]] = {"mse": [], "pcc_gene": []}
    for each in run_cells(plan.rows[0].cells, tmp_path).cells.values():
        (slide_id,) = each.cell.fold.test
        slide = open_slide_data(small_store, slide_id, find_target(55), study.fit.data)
        truth = slide.labels(each.panel, study.fit.data.normalise)[slide.fine.name]
        assert truth is not None
        metrics = evaluate(each.prediction(slide_id), truth)
        found["mse"].append(metrics.mse)
        found["pcc_gene"].append(metrics.pcc_gene)
    for name, values in found.items():
        assert table[f"{name}_mean"][0] == pytest.approx(np.mean(values), rel=1e-5)
        assert table[f"{name}_sd"][0] == pytest.approx(np.std(values, ddof=1), rel=1e-4)
    assert table["pcc_gene_low"][0] <= table["pcc_gene_mean"][0] <= table["pcc_gene_high"][0]
    assert table["pcc_gene_mean"][1] == 0
    assert table["ours_minus_system_mean"][1] == pytest.approx(table["pcc_gene_mean"][0])
    assert 0 < table["pcc_gene_mean"][3] <= 1
    assert table["of_ceiling"][0] == pytest.approx(table["pcc_gene_mean"][0] / table["pcc_gene_mean"][3])


def test_the_ceiling_is_called_an_upper_bound_beside_an_estimate_below_it(small_store: Store, tmp_path: Path) -> None:
    study = small_study(small_store, tmp_path)
    plan = planned(study, targets=(8,), systems=("gene_mean",))
    result = make_table(plan, study)
    genes = pl.read_parquet(result.folder / "genes.parquet")
    known = genes.select("ceiling", LOW_CEILING, DISPERSION).fill_nan(None).drop_nulls()
    assert 0 < len(known) <= len(genes)
    assert (known[LOW_CEILING] <= known["ceiling"]).all()
    assert (known[DISPERSION] >= 0).all()
    text = " ".join((result.folder / "table.txt").read_text(encoding="utf-8").split())
    assert "noise ceiling, an upper bound" in text
    assert low_ceiling_note(genes) in text
    cells = run_cells(plan.cells, tmp_path).cells
    new = (LOW_CEILING, DISPERSION)
    lacking = {cell: replace(each, genes=each.genes.drop(new, strict=False)) for cell, each in cells.items()}
    before = genes_of(plan, Results(lacking, {}))
    assert before.drop(new).equals(genes.drop(new), null_equal=True)
    assert before[LOW_CEILING].is_null().all()


def test_a_finished_cell_is_not_computed_again_and_an_unfinished_one_is(
    small_store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = small_study(small_store, tmp_path)
    plan = planned(study, systems=("gene_mean", "colour_ridge"))
    first = make_table(plan, study)
    fitted: list[object] = []
    fit = ColourRidge.fit

    def watched(ridge: ColourRidge, training: TrainingSide) -> None:
        fitted.append(ridge)
        fit(ridge, training)

    monkeypatch.setattr(ColourRidge, "fit", watched)
    assert make_table(plan, study).text == first.text
    assert fitted == []
    folder = plan.rows[1].cells[0].folder(tmp_path / "cells", small_store)
    (folder / CELL).unlink()
    assert make_table(plan, study).text == first.text
    assert len(fitted) == 1


def test_a_cell_that_fails_is_told_of_and_the_others_go_on(
    small_store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = small_study(small_store, tmp_path)
    build = pipeline.build_system

    def failing(cell: Cell, folder: Path, **options: Any) -> object:
        if cell.system == "colour_ridge" and cell.fold.index == 0:
            raise MagnetError("a system", expected="luck", found="none", remedy="try again")
        return build(cell, folder, **options)

    plan = planned(study, systems=("gene_mean", "colour_ridge"))
    with monkeypatch.context() as patched:
        patched.setattr(pipeline, "build_system", failing)
        result = make_table(plan, study)
    assert result.faults == ("colour ridge, 55 µm, fold 0: a system: expected luck, found none; try again",)
    assert "failed: colour ridge, 55 µm, fold 0" in result.text
    assert "not on every fold: 55 µm colour ridge" in result.text
    assert pl.read_csv(result.folder / "table.csv")["folds"].to_list() == [2, 1, 2]
    whole = make_table(plan, study)
    assert whole.faults == ()
    assert pl.read_csv(whole.folder / "table.csv")["folds"].to_list() == [2, 2, 2]


def test_tables_share_the_cells_they_have_in_common(small_store: Store, tmp_path: Path) -> None:
    study = small_study(small_store, tmp_path)
    planner = Planner(study, choose_folds(study.fit, None))
    ours = planner.baselines((16,), ("magnet",), name="a", title="").rows[0]
    blocks = planner.blocks((16,), ("no_gat", "full"), name="b", title="")
    backbones = planner.backbones((16,), ("timm:test_convnext",), name="c", title="")
    assert ours.cells == blocks.rows[1].cells == backbones.rows[0].cells
    folders = {
        cell.folder(tmp_path, small_store) for row in (ours, *blocks.rows, *backbones.rows) for cell in row.cells
    }
    assert len(folders) == 6  # MagNet and MagNet without its graph, three folds each


@pytest.mark.parametrize(
    ("system", "setting", "same"),
    [
        ("magnet", "optim.lr=1e-2", False),
        ("magnet", "optim.batch_size=32", False),
        ("magnet", "device=cpu", True),
        ("magnet", "compute.resident=never", True),
        ("colour_ridge", "optim.lr=1e-2", True),
        ("colour_ridge", "data.panel=10", False),
        ("st_net", "optim.lr=1e-2", True),
        ("st_net", "seed=3", False),
        ("noise_ceiling", "seed=3", True),
    ],
)
def test_a_cell_is_named_after_what_decides_its_content(
    small_store: Store, tmp_path: Path, system: str, setting: str, same: bool
) -> None:
    def folder(*settings: str) -> Path:
        study = small_study(small_store, tmp_path, *settings)
        (cell, *_) = Planner(study, choose_folds(study.fit, None)).cells(system, study.fit)
        return cell.folder(tmp_path, small_store)

    assert (folder() == folder(setting)) is same


def test_single_genes_are_compared_and_drawn(small_store: Store, tmp_path: Path) -> None:
    study = small_study(small_store, tmp_path, "data.panel=10")
    plan = planned(study, targets=(8,), systems=("magnet", "gene_mean"))
    with pytest.raises(
        MagnetError, match=r"found NOSUCHGENE, in none of them; add --set 'data\.include=\[\"NOSUCHGENE"
    ):
        make_table(plan, study, genes=("NOSUCHGENE",))
    assert not (tmp_path / "cells").exists()  # it is said before anything is computed
    gene = run_cells(plan.cells, tmp_path).cells[plan.rows[0].cells[0]].panel.names[0]
    result = make_table(plan, study, genes=(str(gene),))
    rows = pl.read_csv(result.folder / "pivotal.csv")
    assert rows["system"].unique(maintain_order=True).to_list() == ["MagNet", "gene mean"]
    assert rows.filter(pl.col("system") == "gene mean")["similarity"].is_between(-0.2, 0.2).all()
    assert "in no fold's panel" not in result.text
    assert (result.folder / f"maps-{gene}-8um.png").stat().st_size > 10_000


def test_every_form_of_the_table_says_which_data_a_column_is(small_store: Store, tmp_path: Path) -> None:
    study = small_study(small_store, tmp_path)
    result = make_table(planned(study), study, published=True)
    for form in ("txt", "md", "tex"):
        text = (result.folder / f"table.{form}").read_text()
        assert "columns VUMC and CRC: as published" in text
        assert "0.611" in text  # MagNet's PCC on VUMC at 55 µm, the paper's Table 1
    assert "**" in (result.folder / "table.md").read_text()
    assert r"\textbf{" in (result.folder / "table.tex").read_text()
    description = json.loads((result.folder / "study.json").read_text())
    assert description["folds"].keys() == {"0", "1"}
    assert all(Path(cell).is_dir() for row in description["rows"] for cell in row["cells"])


def test_wrong_input_is_one_line(small_store: Store, tmp_path: Path) -> None:
    study = small_study(small_store, tmp_path)
    with pytest.raises(MagnetError, match=r"--systems: expected a known name, found 'nonesuch'"):
        planned(study, systems=("nonesuch",))
    with pytest.raises(MagnetError, match=r"--fold: expected 0 to 2"):
        choose_folds(study.fit, (7,))


def test_folds_may_be_cut_by_slide(small_store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    samples = [row | {"patient": "one"} for row in small_store.samples()]
    monkeypatch.setattr(Store, "samples", lambda self: samples)
    with pytest.raises(MagnetError, match="expected slides of 2 patients or more"):
        choose_folds(small_study(small_store, tmp_path).fit, None)
    folds = choose_folds(small_study(small_store, tmp_path, "split.by=slide", "split.folds=0").fit, None)
    assert sorted(fold.test for fold in folds) == [("S1",), ("S2",), ("S3",)]


def test_a_cell_that_another_command_is_at_is_waited_for_and_not_computed_again(
    small_store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = planned(small_study(small_store, tmp_path), systems=("gene_mean",))
    (taken, other) = plan.rows[0].cells
    folder = taken.folder(tmp_path / "cells", small_store)
    lock = FileLock(tmp_path / "cells" / f"{folder.name}.lock")
    lock.path.parent.mkdir()
    assert lock.acquire(wait=False)
    said: list[str] = []
    computed: list[Cell] = []
    compute = pipeline.compute

    def finish(line: str) -> None:
        """Do as the command does that holds the cell, once this one says that it waits."""
        said.append(line)
        compute(taken, folder, open_fold(taken.config, fold=taken.fold))
        lock.release()

    def watched(cell: Cell, folder: Path, sides: FoldSides) -> None:
        computed.append(cell)
        compute(cell, folder, sides)

    monkeypatch.setattr(pipeline, "notice", finish)
    monkeypatch.setattr(pipeline, "compute", watched)
    assert run_cells([taken, other], tmp_path).faults == {}
    assert said == [f"{taken.title}: waiting for {socket.gethostname()}, process {os.getpid()} ({invoked()})"]
    assert computed == [other]
    assert list(tmp_path.glob("cells/*.lock")) == []


def invoked() -> str:
    """What a lock's owner says of the command."""
    return " ".join((Path(sys.argv[0]).name, *sys.argv[1:2]))


def test_targets_that_the_store_lacks_are_refused_before_anything_is_computed(
    small_store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = small_study(small_store, tmp_path)
    folds = choose_folds(study.fit, None)
    assert targets_of(study.fit, folds, None, (8, 16, 55)) == [8, 16, 55]
    monkeypatch.setattr(fold_choice, "has_target", lambda store, slide_id, target: target == 55)
    assert targets_of(study.fit, folds, None, (8, 16, 55)) == [55]
    with pytest.raises(MagnetError, match="--targets: expected some of 55, which .* was made for, found 8"):
        targets_of(study.fit, folds, [8], ())


@pytest.mark.parametrize("damage", ["blocks", "genes", "description", "prediction"])
def test_a_damaged_cell_is_one_line_that_says_how_to_have_it_again_and_the_others_go_on(
    small_store: Store, tmp_path: Path, damage: str
) -> None:
    study = small_study(small_store, tmp_path)
    plan = planned(study, systems=("gene_mean",))
    make_table(plan, study)
    folder = plan.rows[0].cells[0].folder(tmp_path / "cells", small_store)
    names = {"blocks": "blocks/*", "genes": "genes.parquet", "description": CELL, "prediction": "predictions/*"}
    (path,) = folder.glob(names[damage])
    path.write_bytes(path.read_bytes()[: len(path.read_bytes()) // 2])
    damaged = make_table(plan, study)
    (fault,) = damaged.faults
    assert "\n" not in fault
    assert re.search(r"fold0-\w+/.*: expected .*, found .*; delete the folder .*, and give the command", fault)
    assert pl.read_csv(damaged.folder / "table.csv")["folds"].to_list() == [1, 2]
    path.unlink()
    assert make_table(plan, study).faults != () or damage == "description"  # which is gone: computed again


def test_a_folder_of_another_command_is_left_alone_and_a_replaced_table_is_said(
    small_store: Store, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(NOTICE, "magnet_hd")
    study = small_study(small_store, tmp_path)
    plan = planned(study, systems=("gene_mean",))
    make_table(plan, study)
    other = small_study(small_store, tmp_path, "data.panel=10")
    make_table(planned(other, systems=("gene_mean",)), other)
    assert "its table, of other data.panel, will be replaced" in caplog.text
    (tmp_path / "table" / "study.json").rename(tmp_path / "table" / "run.json")
    with pytest.raises(MagnetError, match="expected a new folder, or a table's, found something else in it"):
        make_table(plan, study)
    with pytest.raises(MagnetError, match="--name: expected a folder below --runs"):
        make_table(replace(plan, name="../elsewhere"), study)


def test_single_genes_are_drawn_of_one_slide(
    small_store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = small_study(small_store, tmp_path, "data.panel=10")
    plan = planned(study, targets=(8,), systems=("gene_mean", "colour_ridge"))
    results = run_cells(plan.cells, tmp_path)
    gene = str(results.cells[plan.rows[0].cells[0]].panel.names[0])
    drawn: list[list[Map]] = []
    monkeypatch.setattr(pivotal, "draw_maps", lambda maps, title, path: drawn.append(maps))
    del results.cells[plan.rows[1].cells[0]]  # as if it had failed on the fold that is drawn
    pivotal.pivotal_genes(plan, results, [gene], folder=tmp_path, maps=True)
    ((measured, gene_mean),) = drawn
    assert measured.title == f"measured, {plan.rows[0].cells[0].fold.test[0]}"
    assert gene_mean.title == "gene mean"
    np.testing.assert_array_equal(measured.centres_um, gene_mean.centres_um)


@pytest.mark.parametrize("protocol", ["paper", "triplex", "hest"])
def test_every_protocol_makes_a_table_of_its_own_folds_and_genes(
    small_store: Store, tmp_path: Path, protocol: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    settings = [f"data.store={small_store.root}", "data.backbone=timm:test_convnext", "data.target=55"]
    settings += ["data.panel=10"] * (protocol != "hest") + ["encoder.mode=frozen"]
    study = load_study_config(None, settings, protocol=protocol)
    plan = Planner(study, choose_folds(study.fit, None)).baselines((55,), ("colour_ridge",), name="table", title="")
    result = make_table(plan, study)
    assert result.faults == ()
    table = pl.read_csv(result.folder / "table.csv")
    assert table["folds"].to_list() == [3, 3]
    assert (table["of_ceiling"][0] is None) == (protocol == "hest")  # there is none of pooled rows
    assert pl.read_parquet(result.folder / "genes.parquet")["gene_id"].n_unique() >= (50 if protocol == "hest" else 10)
    assert (tmp_path / "runs" / ("folds-triplex.json" if protocol == "triplex" else "folds.json")).exists()


def test_a_recipe_wins_over_its_protocol_and_a_setting_over_both(tmp_path: Path) -> None:
    (tmp_path / "recipe.toml").write_text("[data]\npanel = 30\n[rivals.egn]\nwidth = 32\n")
    study = load_study_config(tmp_path / "recipe.toml", ["rivals.egn.heads=2"], protocol="hest")
    assert (study.fit.data.panel, study.fit.data.panel_by, study.fit.data.normalise.library) == (30, "variance", "none")
    assert (study.rivals.egn.width, study.rivals.egn.heads) == (32, 2)
    with pytest.raises(
        MagnetError, match="--set: rivals.egn: expected a known setting, found 'widht'; did you mean width"
    ):
        load_study_config(None, ["rivals.egn.widht=3"])


@pytest.mark.parametrize(
    ("finetune", "settings", "mode"), [(False, [], "frozen"), (True, [], "full"), (True, ["encoder.mode=lora"], "lora")]
)
def test_encoders_are_trained_where_that_is_asked_for(finetune: bool, settings: list[str], mode: str) -> None:
    def mode_of(finetune: bool, *settings: str) -> str:
        asked = StudyRequest(None, None, None, None, None, settings, "paper", finetune=finetune, folds=None, genes=())
        return configure(asked).fit.encoder.mode

    assert mode_of(finetune, *settings) == mode
    with pytest.raises(MagnetError, match=r"encoder.mode: expected .*; change it, or --finetune of 'train study'"):
        mode_of(not finetune, f"encoder.mode={mode}")


def test_the_best_of_a_group_is_among_rows_of_all_folds() -> None:
    def line(title: str, folds: int, mse: float) -> Line:
        metrics = {name: Statistic(mse, 0.1) for name in ("mse", "mae", "pcc_bin", "pcc_gene")}
        return Line("8 µm", title, False, folds, folds, metrics, 0.5, None, None)

    text = render([line("a", 4, 2.0), line("b", 4, 3.0), line("c", 3, 1.0)], "md", published=False)
    assert "**2.000±0.100**" in text  # of the errors
    assert "**3.000±0.100**" in text  # of the correlations
    assert "**1.000±0.100**" not in text

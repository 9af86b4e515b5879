"""A table that is asked for again: what is the same, what is left alone, and what its legend says."""

from pathlib import Path

import pytest

from cache.store import Store
from magnet_core.console import NOTICE
from magnet_core.errors import MagnetError
from tests.train.setting import small_study
from train.data.fold_choice import check_included, choose_folds
from train.pipeline import make_table
from train.settings.fit import load_config
from train.studies.plans import Plan, Planner
from train.studies.record import other_than_usual
from train.studies.settings import StudyConfig
from train.systems.plain.gene_mean import GeneMean


def planned(study: StudyConfig, systems: tuple[str, ...] = ("gene_mean",)) -> Plan:
    planner = Planner(study, choose_folds(study.fit, (0,)))
    return planner.baselines((55,), systems, name="table", title="A table")


def test_features_that_are_chosen_by_their_digest_are_those_that_were_meant_before(
    small_store: Store, tmp_path: Path
) -> None:
    study = small_study(small_store, tmp_path)
    before = make_table(planned(study), study)
    features = small_store.features(small_store.slide_ids()[0], study.fit.data.backbone)
    chosen = small_study(small_store, tmp_path, f"data.settings_digest={features.header['settings_digest']}")
    again = make_table(planned(chosen), chosen, replaces=False)
    assert [cell.folder for cell in again.cells] == [cell.folder for cell in before.cells]


def test_a_table_stays_where_nothing_of_the_new_one_can_be_computed(
    small_store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = small_study(small_store, tmp_path)
    text = make_table(planned(study), study).text

    def unlucky(*_: object) -> None:
        raise MagnetError("gene mean", expected="luck", found="none", remedy="try again")

    monkeypatch.setattr(GeneMean, "fit", unlucky)
    other = small_study(small_store, tmp_path, "data.panel=9")
    with pytest.raises(MagnetError, match="found none of 1, the first: .* expected luck, found none"):
        make_table(planned(other), other)
    assert (tmp_path / "table" / "table.txt").read_text(encoding="utf-8") == text


def test_cells_of_a_seed_each_are_counted_among_those_that_are_finished(
    small_store: Store, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    one = small_study(small_store, tmp_path)
    make_table(planned(one, ("magnet",)), one)
    two = small_study(small_store, tmp_path, "seeds=2")
    with caplog.at_level(NOTICE):
        make_table(planned(two, ("magnet",)), two)
    assert "2 of 4 cells are finished already" in caplog.text  # the ceiling and seed 0; not seed 1 and the mean


def test_the_legend_says_what_magnet_is_where_it_is_not_as_usual(small_store: Store, tmp_path: Path) -> None:
    study = small_study(small_store, tmp_path, "model.use_gat=false", "sampler=random", "ridge=0.5")
    text = make_table(planned(study), study).text
    assert "MagNet with " in text
    assert {"sampler=random", "ridge=0.5", "model.use_gat=false"} <= set(other_than_usual(study.fit))
    assert other_than_usual(load_config()) == []


def test_genes_to_include_are_looked_at_before_anything_is_computed(small_store: Store, tmp_path: Path) -> None:
    study = small_study(small_store, tmp_path)
    folds = choose_folds(study.fit, None)
    names = small_store.geometry(folds[0].train[0]).read("genes/name").tolist()
    check_included(study.fit.changed(data={"include": names[:3]}), folds)
    with pytest.raises(MagnetError, match=r"data.include: expected genes measured on all training slides, found NOPE"):
        check_included(study.fit.changed(data={"include": ["NOPE"]}), folds)
    with pytest.raises(MagnetError, match=r"data.include: expected at most as many genes as the panel has, 2, found 3"):
        check_included(study.fit.changed(data={"include": names[:3], "panel": 2}), folds)

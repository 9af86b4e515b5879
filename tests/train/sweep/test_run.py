import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from cache.store import Store
from magnet_core.errors import MagnetError
from tests.train.sweep.setting import sweep_of
from train.data.fold_choice import choose_fold
from train.data.fold_sides import FoldSides
from train.data.slide import Slide
from train.pipeline import fit
from train.report.page import write_report
from train.settings.fit import load_config
from train.sweep.run import run_sweep


def trials_of(folder: Path) -> pl.DataFrame:
    return pl.read_csv(folder / "trials.csv")


def test_a_sweep_ends_goes_on_and_leaves_its_best_as_a_recipe(small_store: Store, tmp_path: Path) -> None:
    sweep = sweep_of(small_store, tmp_path / "runs")
    first = run_sweep(sweep, trials=4)
    assert first.finished == 4
    before = trials_of(first.folder)
    assert before["ended"].to_list() == ["whole"] * 4

    result = run_sweep(sweep, trials=6)
    after = trials_of(result.folder)
    assert after.height == 6
    assert after.head(4).equals(before)
    assert result.value == after["pcc_gene"].max()
    assert run_sweep(sweep, trials=5).finished == 6

    assert "fold = 0\n" in (result.folder / "best.toml").read_text()  # its test slides alone were not seen
    recipe = load_config(result.folder / "best.toml")
    assert recipe == sweep.config(result.values).changed(name="", device="auto")
    assert (recipe.optim.lr, recipe.model.rounds) == (result.values["optim.lr"], result.values["model.rounds"])
    assert (recipe.data.store, recipe.encoder.mode, recipe.model.width) == (small_store.root, "frozen", 32)
    page = write_report([result.folder], tmp_path / "page.html").read_text()
    assert page.count("data:image/png;base64,") == 2
    assert "importance of settings needs 10 whole trials; there are 6" in page
    assert not any((result.folder / "scratch").iterdir())


def test_a_trials_value_is_the_validation_score_of_a_fit_with_its_settings(small_store: Store, tmp_path: Path) -> None:
    sweep = sweep_of(small_store, tmp_path / "runs", settings="validation.share = 0.5")
    result = run_sweep(sweep, trials=2)
    config = load_config(result.folder / "best.toml", ["name=again", "device=cpu"])
    description = json.loads((fit(config).cell().folder / "run.json").read_text())
    assert max(description["validation_scores"]) == pytest.approx(result.value, abs=1e-6)
    record = json.loads((result.folder / "sweep.json").read_text())
    assert record["slides"]["validation"] == description["validation_slides"]


def test_the_labels_of_test_slides_are_never_asked_for(
    small_store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = sweep_of(small_store, tmp_path / "plain")
    expected = run_sweep(plain, trials=2)
    fold = choose_fold(plain.base)
    labels, means, asked = Slide.labels, Slide.mean_counts, set()

    def watched_labels(slide: Slide, *arguments: object) -> dict[str, np.ndarray | None]:
        asked.add(slide.slide_id)
        values = labels(slide, *arguments)  # type: ignore[arg-type]
        if slide.slide_id in fold.train:
            return values
        return {level: None if known is None else known * 0 + 1e3 for level, known in values.items()}

    def watched_means(slide: Slide) -> np.ndarray:
        asked.add(slide.slide_id)
        return means(slide) if slide.slide_id in fold.train else means(slide)[::-1]

    def no_truth(sides: FoldSides) -> dict[str, np.ndarray]:
        raise AssertionError

    monkeypatch.setattr(Slide, "labels", watched_labels)
    monkeypatch.setattr(Slide, "mean_counts", watched_means)
    monkeypatch.setattr(FoldSides, "truth", no_truth)
    marked = run_sweep(sweep_of(small_store, tmp_path / "marked"), trials=2)
    assert asked == set(fold.train)
    assert (marked.value, marked.values) == (expected.value, expected.values)


def test_a_sweep_that_was_stopped_draws_what_it_would_have_drawn(
    small_store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = run_sweep(sweep_of(small_store, tmp_path / "whole"), trials=5)
    sweep = sweep_of(small_store, tmp_path / "stopped")
    run_sweep(sweep, trials=3)

    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("train.sweep.objective.judge", interrupted)
        with pytest.raises(KeyboardInterrupt):
            run_sweep(sweep, trials=5)
    assert trials_of(sweep.folder)["ended"].to_list() == ["whole"] * 3 + ["under way"]
    result = run_sweep(sweep, trials=5)
    counted = trials_of(sweep.folder).filter(pl.col("ended") == "whole")
    drawn = ["pcc_gene", "optim.lr", "model.rounds"]
    assert counted.select(drawn).equals(trials_of(whole.folder).select(drawn))
    assert result.value == whole.value


def test_a_sweep_of_other_settings_or_space_is_one_line(small_store: Store, tmp_path: Path) -> None:
    run_sweep(sweep_of(small_store, tmp_path / "runs"), trials=1)
    with pytest.raises(MagnetError, match="one that differs in loss.lambda_fine; give another --name"):
        run_sweep(sweep_of(small_store, tmp_path / "runs", settings="loss.lambda_fine = 0.5"), trials=2)
    with pytest.raises(MagnetError, match="one that differs in space.model.rounds"):
        run_sweep(
            sweep_of(small_store, tmp_path / "runs", space='"optim.lr" = {low = 1e-3, high = 1e-2, log = true}'),
            trials=2,
        )


def test_a_combination_that_is_refused_is_kept_with_its_line(small_store: Store, tmp_path: Path) -> None:
    space = '"model.width" = {choices = [30, 32]}\n"model.heads" = {choices = [3, 4]}'
    sweep = sweep_of(small_store, tmp_path / "runs", space=space, search='sampler = "random"\nseed = 1')
    result = run_sweep(sweep, trials=8)
    table = trials_of(result.folder)
    refused = table.filter(pl.col("model.width") % pl.col("model.heads") != 0)
    assert 0 < refused.height < 8
    assert set(refused["ended"]) == {"refused"}
    assert all("model.width: expected a multiple of heads=" in reason for reason in refused["reason"])
    assert result.finished == 8
    assert "expected a multiple of heads" in write_report([result.folder], tmp_path / "page.html").read_text()

from pathlib import Path

import optuna
import pytest

from cache.store import Store
from tests.train.sweep.setting import sweep_of
from train.report.page import write_report
from train.report.search import why_no_importance
from train.sweep.objective import Benches
from train.sweep.record import check_record, write_results
from train.sweep.study import open_study

SPACE = """
"optim.lr" = {low = 1e-4, high = 1e-2, log = true}
"model.rounds" = {low = 1, high = 4}
"model.dropout" = {low = 0.0, high = 0.4, step = 0.1}
"model.width" = {choices = [32, 64]}
"model.use_gat" = {choices = [true, false]}
"""


def told(store: Store, runs: Path, value: float | None, *, trials: int) -> str:
    """The page of a study whose trials were told and not trained; without a value, lr's own."""
    sweep = sweep_of(store, runs, space=SPACE)
    with open_study(sweep.folder, sweep.search) as study:
        study.sampler = optuna.samplers.RandomSampler(seed=0)
        for _ in range(trials):
            trial = study.ask()
            values = {name: item.suggest(trial, name) for name, item in sweep.space.items()}
            study.tell(trial, value if value is not None else float(values["optim.lr"]))
        check_record(sweep, Benches().bench(sweep.base))
        write_results(study, sweep)
        if not why_no_importance(study):
            importances = optuna.importance.get_param_importances(study)
            assert max(importances, key=lambda name: importances[name]) == "optim.lr"
    return write_report([sweep.folder], sweep.folder / "report.html").read_text()


def test_a_page_holds_history_importance_and_slices_itself(small_store: Store, tmp_path: Path) -> None:
    page = told(small_store, tmp_path / "runs", None, trials=40)
    assert page.count("data:image/png;base64,") == 1 + 1 + 2
    assert "http" not in page
    assert "40 whole" in page


@pytest.mark.parametrize(
    ("trials", "says"), [(3, "needs 10 whole trials; there are 3"), (12, "All whole trials have the same value")]
)
def test_a_page_says_why_it_has_no_importance(small_store: Store, tmp_path: Path, trials: int, says: str) -> None:
    page = told(small_store, tmp_path / "runs", 0.5, trials=trials)
    assert says in page


def test_a_single_trial_can_be_drawn(small_store: Store, tmp_path: Path) -> None:
    assert "1 whole" in told(small_store, tmp_path / "runs", 0.5, trials=1)

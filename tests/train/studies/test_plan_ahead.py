"""`train plan` counts cells and steps as folds and the loop cut them, and says what is measured."""

import pytest
from typer.testing import CliRunner

from magnet_core.errors import MagnetError
from magnet_core.forecast.rates import FROZEN, GPUS
from train.cli import app
from train.data.folds import make_folds
from train.studies.forecast import Request, Sides, learners_of, rows_learnt, seconds_of
from train.studies.settings import load_study_config
from train.systems.table import SYSTEMS, learns_in_epochs, plain_systems

FIT = Request("train fit", [("magnet", "resnet50")], 4, (8,), seeds=1, one_fold=True)


@pytest.mark.parametrize("slides", [2, 3, 10, 41])
@pytest.mark.parametrize("folds", [4, 0])
def test_sides_are_those_of_the_folds_on_average(slides: int, folds: int) -> None:
    config = load_study_config(None, [f"split.folds={folds}"])
    made = make_folds({f"S{number}": f"P{number}" for number in range(slides)}, folds=folds)
    sides = Sides.of(slides, config)
    assert sides.folds == len(made)
    assert sides.test == pytest.approx(sum(len(fold.test) for fold in made) / len(made))
    assert sides.train == pytest.approx(sum(len(fold.train) for fold in made) / len(made))


def test_rows_are_those_of_all_epochs_and_a_third_of_those_that_are_only_predicted() -> None:
    config = load_study_config(None, ["optim.epochs=10", "validation.share=0.25"])
    assert rows_learnt(Sides.of(16, config), 10, config) == pytest.approx(10 * 9 + (10 * 3 + 4) / 3)
    few = Sides.of(4, config)  # of three patients one is held out, then all are learnt from again
    assert rows_learnt(few, 10, config) == pytest.approx(10 * 2 + 10 * 3 + (10 * 1 + 1) / 3)
    once = load_study_config(None, ["optim.epochs=10", "validation.share=0"])
    assert rows_learnt(Sides.of(4, once), 10, once) == pytest.approx(10 * 3 + 1 / 3)


def test_hours_grow_with_seeds_folds_systems_and_targets() -> None:
    config = load_study_config(None, ["rivals.egn.epochs=50"])

    def seconds(request: Request) -> float:
        return seconds_of(request, 40, config, part=FROZEN, gpu=GPUS["a100"]).seconds

    one = seconds(FIT)
    assert seconds(Request("", FIT.learners, 4, (8,), seeds=3, one_fold=True)) == pytest.approx(3 * one)
    assert seconds(Request("", FIT.learners, 4, (8,), seeds=1)) == pytest.approx(4 * one)
    assert seconds(Request("", FIT.learners, 4, (8, 16), seeds=1, one_fold=True)) == pytest.approx(2 * one)
    assert seconds(Request("", FIT.learners, 4, (8,), seeds=1, one_fold=True, rows=600)) == pytest.approx(one / 10)
    both = [("magnet", "resnet50"), ("egn", "resnet50")]
    assert seconds(Request("", both, 4, (8,), seeds=1, one_fold=True)) == pytest.approx(2 * one)


def test_what_learns_is_what_the_commands_compute() -> None:
    learners, plain = learners_of("baselines", "uni", ())
    assert [system for system, _ in learners] == [name for name in SYSTEMS if learns_in_epochs(name)]
    assert {backbone for _, backbone in learners} == {"uni"}
    assert plain == len(plain_systems()) == len(SYSTEMS) - len(learners)
    assert learners_of("backbones", "uni", ("resnet50", "uni")) == ([("magnet", "resnet50"), ("magnet", "uni")], 0)
    assert [len(learners_of(study, "uni", ())[0]) for study in ("fit", "cv", "blocks", "levels")] == [1, 1, 5, 3]


def test_the_command_says_in_each_row_what_is_measured() -> None:
    done = CliRunner().invoke(app, ["plan", "cv", "--price", "2", "--days", "7", "--set", "optim.epochs=5"])
    assert done.exit_code == 0
    cells, _, times = done.stdout.partition("The time of what is learnt\n")
    assert [line.split()[:4] for line in cells.splitlines()[3:6]] == [
        ["10", "4", "20", "156"],
        ["1,000", "4", "20", "14,400"],
        ["100,000", "4", "20", "1,440,000"],
    ]
    rows = times.partition("\n\n")[0].splitlines()[2:]
    assert len(rows) == 12
    assert all(("measured" if "core" in line else "simulated") in line for line in rows)
    assert "number for 7 days" in times
    assert "left out: " in times


def test_mistakes_are_one_line() -> None:
    for arguments, said in (
        (["plan", "--targets", "9"], "--target: expected 8, 16 or 55"),
        (["plan", "--days", "2", "--gpus", "1"], "--days: expected --gpus or --days, found both"),
    ):
        done = CliRunner().invoke(app, arguments)
        assert isinstance(done.exception, MagnetError)
        assert said in str(done.exception)

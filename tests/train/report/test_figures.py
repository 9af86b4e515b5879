import math

import pytest

from train.report.figures import MOST_TITLES, Curve, Estimate, Scale, curves, estimates, round_step, scatter


@pytest.mark.parametrize(("raw", "step"), [(1.0, 1), (1.1, 2), (0.2, 0.2), (0.21, 0.5), (60, 100), (7e-4, 1e-3)])
def test_steps_are_round(raw: float, step: float) -> None:
    assert round_step(raw) == pytest.approx(step)


def test_ticks_say_the_value_where_they_stand() -> None:
    scale = Scale(-0.13, 0.9, 100, 400)
    ticks = scale.ticks()
    assert [tick.label for tick in ticks] == ["0.0", "0.2", "0.4", "0.6", "0.8"]
    assert all(tick.at == scale(float(tick.label)) for tick in ticks)
    assert (scale(-0.13), scale(0.9)) == (100, 400)


def test_a_scale_of_one_value_holds_it() -> None:
    assert Scale.over([0.0], 0, 10)(0.0) == 5
    assert len(Scale.over([7.0], 0, 10).ticks()) > 1


def test_systems_lie_in_their_order_within_the_ceiling() -> None:
    rows = [Estimate("ours", 0.4, 0.3, 0.5, is_ours=True), Estimate("other", 0.2), Estimate("none", math.nan)]
    plot = estimates("8 µm", rows, x_title="PCC", ceiling=0.6)
    ours, other = plot.marks
    limit, interval = plot.paths
    assert (ours.look, other.look) == ("ours", "other")
    assert ours.y < other.y
    assert other.x < ours.x < float(limit.d.split()[0][1:])
    low, high = float(interval.d.split()[0][1:]), float(interval.d.split("H")[1])
    assert low < ours.x < high
    assert (ours.x - low) == pytest.approx(high - ours.x, abs=0.2)
    assert ours.title == "ours: 0.400, 95 % 0.300 to 0.500"
    assert [tick.label for tick in plot.y_ticks] == ["ours", "other", "none"]


def test_a_point_on_the_line_of_equals_lies_on_it() -> None:
    plot = scatter("genes", [(0.5, 0.5, "even"), (0.8, -0.2, "under")], x_title="x", y_title="y")
    left, top, right, bottom = plot.frame
    even, under = plot.marks
    assert (even.x - left) / (right - left) == pytest.approx((bottom - even.y) / (bottom - top), abs=1e-3)
    assert under.y > even.y


def test_a_crowd_of_points_is_one_path_without_names() -> None:
    plot = scatter("genes", [(0.1, 0.2, "gene")] * (MOST_TITLES + 1), x_title="x", y_title="y")
    assert plot.marks == []
    assert plot.paths[-1].d.count("h0") == MOST_TITLES + 1


def test_a_curve_leaves_out_what_is_unknown_and_marks_the_epoch_kept() -> None:
    drawn = [Curve("MagNet", "fold 0", [3.0, math.nan, 1.0], 3), Curve("w/o GAT", "fold 0", [2.0], 1)]
    plot = curves("loss", drawn, y_title="loss")
    assert plot.paths[0].d.count("L") == 1
    assert [mark.title for mark in plot.marks] == [
        "MagNet, fold 0: 1 at epoch 3, kept", "w/o GAT, fold 0: 2 at epoch 1, kept"
    ]  # fmt: skip
    assert plot.marks[0].y > plot.marks[1].y
    assert plot.legend == [("c0", "MagNet"), ("c1", "w/o GAT")]
    assert [tick.label for tick in plot.x_ticks] == ["1", "2", "3"]

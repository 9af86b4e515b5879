"""What is held out: whole patients, blocks of tissue of a single one, or nothing; and what is then learnt from."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from cache.knn import knn_edges
from cache.store import Store
from tests.train.setting import config
from train.data import tissue_blocks, training_side
from train.data.fold_sides import open_fold
from train.data.slide_part import learnt_part
from train.data.tissue_blocks import TissueBlocks, draw_blocks
from train.data.training_side import HeldOut, TrainingSide, held_out_patients, hold_out
from train.settings.fit import FitConfig, ValidationConfig

CPU = torch.device("cpu")


def plane(side_um: float, pitch_um: float = 16.0) -> np.ndarray:
    """Centres (N, 2) of all bins of a square slide."""
    places = np.arange(0, side_um, pitch_um) + pitch_um / 2
    return np.stack(np.meshgrid(places, places), axis=-1).reshape(-1, 2)


def apart_um(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Distance along the farther axis of each point from each other one, (N, M)."""
    return np.asarray(np.abs(one[:, None] - other).max(axis=2))


@pytest.mark.parametrize(("patients", "held_out"), [(0, 0), (1, 0), (2, 1), (4, 1), (5, 1), (10, 2)])
def test_of_several_patients_the_share_is_held_out_and_one_at_least(patients: int, held_out: int) -> None:
    names = [f"P{number}" for number in range(patients)]
    assert len(held_out_patients(names, FitConfig())) == ValidationConfig().num_patients(patients) == held_out
    assert len(held_out_patients([*names, *names], FitConfig())) == held_out
    few_are_not = FitConfig().changed(validation={"few": "none"})
    assert len(held_out_patients(names, few_are_not)) == (held_out if patients >= 5 else 0)
    assert held_out_patients(names, FitConfig().changed(validation={"share": 0})) == set()


def test_of_five_patients_the_same_is_held_out_whatever_is_meant_for_few() -> None:
    names = [f"P{number}" for number in range(5)]
    assert held_out_patients(names, FitConfig().changed(validation={"few": "none"})) == {"P1"}
    assert held_out_patients(names, FitConfig()) == {"P1"}


@pytest.mark.parametrize("side_um", [800.0, 2000.0])
@pytest.mark.parametrize("share", [0.1, 0.2, 0.4])
def test_blocks_hold_about_a_share_and_their_margin_keeps_what_is_learnt_away(side_um: float, share: float) -> None:
    points = plane(side_um)
    blocks = draw_blocks(points, share, margin_um=156, rng=np.random.default_rng(0))
    assert blocks is not None
    judged, learnt = blocks.judged(points), blocks.learnt(points)
    assert 0.5 * share <= judged.mean() <= 1.5 * share
    assert learnt.mean() >= 0.5 * (1 - share)
    assert apart_um(points[judged], points[learnt]).min() > 156
    assert (apart_um(points[judged], blocks.centres_um).min(axis=1) <= blocks.side_um / 2).all()
    between = ~judged & ~learnt
    assert (apart_um(points[between], blocks.centres_um).min(axis=1) <= blocks.side_um / 2 + 156).all()
    squares = blocks.learnt(points, side_um=128)
    assert (apart_um(points[squares], points[~learnt]).min(axis=1) > 64 - 1e-9).all()


def test_the_seed_decides_the_blocks() -> None:
    points = plane(1500)
    first, again, other = (draw_blocks(points, 0.2, margin_um=156, rng=np.random.default_rng(s)) for s in (1, 1, 2))
    assert first is not None
    assert again is not None
    assert other is not None
    np.testing.assert_array_equal(first.centres_um, again.centres_um)
    assert not np.array_equal(first.centres_um, other.centres_um)


@pytest.mark.parametrize("points", [plane(250), plane(2000, 500), np.zeros((1, 2))], ids=["narrow", "sparse", "one"])
def test_a_slide_too_small_has_no_blocks(points: np.ndarray) -> None:
    assert draw_blocks(points, 0.2, margin_um=156, rng=np.random.default_rng(0)) is None


def single(store: Store, folder: Path, *settings: str) -> tuple[TrainingSide, FitConfig]:
    """The first training slide alone."""
    wanted = config(store, folder, *settings)
    side = open_fold(wanted).training
    return replace(side, slides=side.slides[:1]), wanted


def in_the_middle(side: TrainingSide, margin_um: float = 30.0) -> HeldOut:
    """A small block around one row, its margin too."""
    (slide,) = side.slides
    return HeldOut(slide, TissueBlocks(slide.fine.centres_um[:1], 60.0, margin_um))


@pytest.mark.parametrize("target", [8, 16, 55])
def test_what_is_learnt_beside_blocks_is_the_slide_without_them(
    small_store: Store, tmp_path: Path, target: int
) -> None:
    side, _ = single(small_store, tmp_path, f"data.target={target}")
    (slide,) = side.slides
    held = in_the_middle(side)
    assert held.blocks is not None
    learnt = replace(side, held_out=[held]).learnt
    (part,) = learnt.slides
    reach = apart_um(slide.fine.centres_um, slide.fine.centres_um[:1])[:, 0]
    rows = np.flatnonzero(reach > 60)
    assert 0 < len(rows) < len(slide.fine)
    np.testing.assert_array_equal(held.rows, np.flatnonzero(reach <= 30))

    def same(one: object, other: object) -> None:
        np.testing.assert_array_equal(np.asarray(one), np.asarray(other))

    some = np.array([0, 2, len(rows) - 1])
    assert len(part.fine) == len(rows)
    same(part.fine.edges, knn_edges(slide.fine.centres_um[rows], slide.fine.edges.shape[1]))
    same(part.fine.barcodes(), slide.fine.barcodes()[rows])
    same(part.fine.features("fine", some), slide.fine.features("fine", rows[some]))
    same(part.fine.pixels(some), slide.fine.pixels(rows[some]))
    raw = slide.fine.features("pooled", rows[some], device=CPU)
    same(part.fine.features("pooled", some, device=CPU), raw)
    same(part.fine.scale(raw), slide.fine.scale(raw))
    fine = part.fine.features("fine", some)
    same(part.fine.fine_scale(fine), slide.fine.fine_scale(fine))
    assert part.fine.fine_width == slide.fine.fine_width > slide.fine.width
    for name in slide.contexts:
        same(part.pairs[name], slide.pairs[name][rows])
    same(learnt.fine(part), side.fine(slide)[rows])
    relabelled = part.labels(side.panel, side.normalise)[part.fine.name]  # from the raw counts
    same(relabelled, side.fine(slide)[rows])


@pytest.mark.parametrize("target", [8, 55])
def test_labels_of_contexts_that_touch_a_block_or_its_margin_are_missing(
    small_store: Store, tmp_path: Path, target: int
) -> None:
    side, _ = single(small_store, tmp_path, f"data.target={target}")
    (slide,) = side.slides
    held = in_the_middle(side)
    assert held.blocks is not None
    _, labels = learnt_part(slide, side.labels[slide.slide_id], held.blocks)
    for name, level in slide.contexts.items():
        before, now = side.labels[slide.slide_id][name], labels[name]
        if before is None or now is None:
            assert before is now
            continue
        touches = apart_um(level.centres_um, slide.fine.centres_um[:1])[:, 0] <= 60 + level.patch_um / 2
        assert touches.any()
        assert np.isnan(now[touches]).all()
        np.testing.assert_array_equal(now[~touches], before[~touches])


def test_of_one_patient_blocks_are_held_out_and_where_there_is_no_room_it_says_so(
    small_store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    side, wanted = single(small_store, tmp_path, "validation.few=hold_out")
    monkeypatch.setattr(tissue_blocks, "SIDES_UM", (1e4,))
    nothing = hold_out(side, wanted)
    assert nothing.held_out == []
    assert nothing.why_none == "one patient, and no slide has room for a block of tissue with its margin"
    asked = []

    def draw(points_um: np.ndarray, share: float, **how: object) -> TissueBlocks:
        asked.append((share, how["margin_um"]))
        return TissueBlocks(points_um[:1], 60.0, 30.0)

    monkeypatch.setattr(training_side, "draw_blocks", draw)
    (held,) = hold_out(side, wanted).held_out
    assert asked == [(0.2, 28 + 128)]
    assert held.blocks is not None
    assert str(held) == f"blocks of {side.slides[0].slide_id}"


@pytest.mark.parametrize(
    ("settings", "why"),
    [
        (["validation.share=0"], "validation.share=0"),
        (["validation.few=none"], "a share of 0.2 of 2 patients is none, and validation.few=none"),
    ],
)
def test_why_nothing_is_held_out_is_said(small_store: Store, tmp_path: Path, settings: list[str], why: str) -> None:
    wanted = config(small_store, tmp_path, *settings)
    side = hold_out(open_fold(wanted).training, wanted)
    assert (side.held_out, side.why_none) == ([], why)
    assert side.learnt.slides == side.slides

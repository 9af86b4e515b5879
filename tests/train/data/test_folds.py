"""Folds: nothing leaks, everything is tested once, and the file is written once and then believed only if it fits."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from magnet_core.errors import MagnetError
from tests.train.setting import edited
from train.data.folds import fewer_folds_notice, load_or_create_folds, make_folds

COHORT = {f"{patient}{section}": patient for patient, count in zip("ABCDEFG", (5, 3, 2, 2, 1, 1, 1), strict=True)
          for section in range(count)}  # fmt: skip


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("count", [2, 3, 4, 7])
def test_every_slide_is_tested_once_and_no_patient_is_on_both_sides(seed: int, count: int) -> None:
    folds = make_folds(COHORT, folds=count, seed=seed)
    assert [fold.index for fold in folds] == list(range(count))
    assert sorted(slide for fold in folds for slide in fold.test) == sorted(COHORT)
    for fold in folds:
        assert sorted(fold.train + fold.test) == sorted(COHORT)
        assert {COHORT[slide] for slide in fold.train}.isdisjoint(COHORT[slide] for slide in fold.test)


@pytest.mark.parametrize(("count", "sizes"), [(2, [7, 8]), (3, [5, 5, 5]), (4, [3, 3, 4, 5])])
def test_folds_are_as_even_as_whole_patients_allow(count: int, sizes: list[int]) -> None:
    assert sorted(len(fold.test) for fold in make_folds(COHORT, folds=count, seed=3)) == sizes


def test_folds_depend_on_the_seed_and_not_on_the_order_of_the_samples() -> None:
    backwards = dict(reversed(COHORT.items()))
    assert make_folds(COHORT, seed=1) == make_folds(backwards, seed=1)
    assert len({tuple(make_folds(COHORT, seed=seed)) for seed in range(10)}) > 1


def test_slides_without_a_patient_are_patients_of_their_own() -> None:
    folds = make_folds({"s1": "", "s2": "", "s3": "", "s4": ""}, folds=4)
    assert sorted(fold.test for fold in folds) == [("s1",), ("s2",), ("s3",), ("s4",)]


def test_fewer_patients_than_folds_give_one_fold_a_patient_and_a_notice() -> None:
    her2st = {"B4": "B", "C2": "C", "C3": "C"}
    assert sorted(fold.test for fold in make_folds(her2st, folds=4)) == [("B4",), ("C2", "C3")]
    assert fewer_folds_notice(her2st, folds=4) == "2 patients only: 2 folds in place of 4"
    assert fewer_folds_notice(her2st, folds=2) is None
    assert fewer_folds_notice({"C2": "C", "C3": "C"}, folds=4) is None  # no fold at all: make_folds says so


@pytest.mark.parametrize(
    ("patients", "count", "message"),
    [
        (
            {"C2": "C", "C3": "C"},
            2,
            "found 1 patient\\(s\\) and 2 slide\\(s\\); give each patient's own name in the column 'patient'",
        ),
        ({"C2": ""}, 2, "found 1 patient"),
        ({}, 2, "found 0 patient"),
        (COHORT, 1, "expected 2 folds or more, or 0 for one a patient, found 1"),
    ],
)
def test_what_cannot_be_split_is_refused(patients: dict[str, str], count: int, message: str) -> None:
    with pytest.raises(MagnetError, match=message):
        make_folds(patients, folds=count)


def test_the_file_is_written_once_and_wins_over_a_later_seed(tmp_path: Path) -> None:
    path = tmp_path / "runs" / "folds.json"
    first = load_or_create_folds(path, COHORT, folds=4, seed=0)
    written = path.read_bytes()
    assert first == make_folds(COHORT, folds=4, seed=0)
    assert all(load_or_create_folds(path, COHORT, folds=4, seed=seed) == first for seed in range(5))
    assert path.read_bytes() == written
    assert [entry.name for entry in path.parent.iterdir()] == ["folds.json"]


@pytest.mark.parametrize(
    ("changed", "named"),
    [
        (COHORT | {"H0": "H"}, "added: H0"),
        ({slide: patient for slide, patient in COHORT.items() if patient != "G"}, "removed: G0"),
        (COHORT | {"G0": "A"}, "of another patient: G0"),
    ],
)
def test_a_changed_cohort_is_refused_by_name(tmp_path: Path, changed: dict[str, str], named: str) -> None:
    path = tmp_path / "folds.json"
    load_or_create_folds(path, COHORT)
    with pytest.raises(MagnetError, match=f"{named}; delete the file .* --set split.file=PATH"):
        load_or_create_folds(path, changed)


def test_another_number_of_folds_is_refused_not_ignored(tmp_path: Path) -> None:
    path = tmp_path / "folds.json"
    load_or_create_folds(path, COHORT, folds=4)
    with pytest.raises(MagnetError, match="expected 3 folds, found 4"):
        load_or_create_folds(path, COHORT, folds=3)


def _leak_slide(folds: list[dict[str, Any]]) -> None:
    folds[1]["train"].append(folds[1]["test"][0])


def _leak_patient(folds: list[dict[str, Any]]) -> None:
    fold = next(fold for fold in folds if "A0" in fold["test"])
    fold["test"].remove("A0")
    fold["train"].append("A0")


def _repeat(folds: list[dict[str, Any]]) -> None:
    folds[0]["train"].append(folds[0]["train"][0])


def _invent(folds: list[dict[str, Any]]) -> None:
    folds[2]["test"].append("Z9")


def _test_twice(folds: list[dict[str, Any]]) -> None:
    folds[0]["train"], folds[0]["test"] = folds[1]["train"], folds[1]["test"]


def _empty(folds: list[dict[str, Any]]) -> None:
    folds[3]["test"].clear()


def _renumber(folds: list[dict[str, Any]]) -> None:
    folds[0]["index"] = 7


def _misspell(folds: list[dict[str, Any]]) -> None:
    folds[0]["trian"] = folds[0].pop("train")


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (_leak_slide, r"fold 1: expected no slide in both 'train' and 'test', found [A-G]\d"),
        (_leak_patient, r"fold \d: expected no patient in both 'train' and 'test', found A;"),
        (_repeat, r"fold 0: expected each slide once in 'train', found [A-G]\d;"),
        (_invent, r"fold 2: expected only known slides in 'test', found Z9;"),
        (_test_twice, "expected each slide tested in one fold at most, found"),
        (_empty, "fold 3: expected a slide in 'test', found none"),
        (_renumber, "expected folds with the indices 0, 1, …, found 1, 2, 3, 7"),
        (_misspell, r"folds\.0\.train: Field required"),
    ],
)
def test_a_broken_hand_edit_is_refused_by_name(
    tmp_path: Path, edit: Callable[[list[dict[str, Any]]], None], message: str
) -> None:
    path = tmp_path / "folds.json"
    load_or_create_folds(path, COHORT)
    edited(path, lambda content: edit(content["folds"]))
    with pytest.raises(MagnetError, match=message):
        load_or_create_folds(path, COHORT)


def test_a_hand_written_single_split_is_used_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "folds.json"
    load_or_create_folds(path, COHORT)
    split = [{"index": 0, "train": ["A0", "B1"], "test": ["C0"]}]
    edited(path, lambda content: content.update(folds=split))
    [fold] = load_or_create_folds(path, COHORT)
    assert (fold.train, fold.test) == (("A0", "B1"), ("C0",))


@pytest.mark.parametrize("text", ["", "{", '{"schema_version": 2}', "[]"])
def test_a_file_that_is_no_folds_file_is_one_line_of_error(tmp_path: Path, text: str) -> None:
    path = tmp_path / "folds.json"
    path.write_text(text)
    with pytest.raises(MagnetError, match="expected a folds file") as caught:
        load_or_create_folds(path, COHORT)
    assert "\n" not in str(caught.value)


def test_no_number_of_folds_leaves_one_patient_out() -> None:
    folds = make_folds({"S1": "A", "S2": "A", "S3": "B", "S4": ""}, folds=0)
    assert sorted(fold.test for fold in folds) == [("S1", "S2"), ("S3",), ("S4",)]


def test_a_changed_file_of_folds_is_refused_as_long_as_its_checksum_stands(tmp_path: Path) -> None:
    path = tmp_path / "folds.json"
    folds = load_or_create_folds(path, COHORT)
    path.write_text(path.read_text().replace('"seed": 0', '"seed": 1'))
    with pytest.raises(MagnetError, match=r"folds\.json: expected a folds file .* as it was written, found content"):
        load_or_create_folds(path, COHORT)
    edited(path, lambda _: None)
    assert load_or_create_folds(path, COHORT) == folds

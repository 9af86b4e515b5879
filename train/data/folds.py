"""Cross-validation folds: which slides train and which test, fixed once for all runs that will be compared.

In: the patient of each slide that has counts. Out: folds grouped by patient, so that no patient is on both sides, and
the file `folds.json` that later runs read back. The paper (section 4) uses four folds by slide; grouping by patient is
ours, because two slides of one patient are no independent test.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from magnet_core.errors import MagnetError
from magnet_core.sealed import read_sealed, write_sealed
from magnet_core.seeding import named_rng

REMAKE = "delete the file to make new folds, or name another with --set split.file=PATH"
_OURS = "a folds file as this program writes it"
CORRECT = "correct the file, or delete it to make new folds"

ONE_A_PATIENT = 0  # as a number of folds: leave one patient out


@dataclass(frozen=True)
class Fold:
    """One fold: its number from 0, and the slide ids of its two sides, sorted."""

    index: int
    train: tuple[str, ...]
    test: tuple[str, ...]


class FoldsFile(BaseModel):
    """`folds.json`: the folds and all that they were made from."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    schema_version: Literal[1] = 1
    seed: int
    requested_folds: int
    patients: dict[str, str]
    folds: tuple[Fold, ...]


def fewer_folds_notice(patients: Mapping[str, str], *, folds: int) -> str | None:
    """Say that there will be fewer folds than asked for; None where there are patients enough, or no folds at all."""
    count = len(_slides_by_patient(patients))
    return f"{count} patients only: {count} folds in place of {folds}" if 2 <= count < folds else None


def make_folds(patients: Mapping[str, str], *, folds: int = 4, seed: int = 0) -> list[Fold]:
    """Split slides into folds by patient, of nearly equal numbers of slides.

    `patients` maps slide id to patient; a slide whose patient is empty is a patient of its own. Each slide is tested
    in exactly one fold and trains in all others. The result depends on the seed and on what the mapping holds, not on
    its order. With fewer patients than folds, or with 0 folds asked for, each patient is one fold. Patients are dealt
    out in random order, patients with most slides first, each to the fold with fewest slides so far.

    Raises `MagnetError` for fewer than two folds or two patients.
    """
    if folds < 2 and folds != ONE_A_PATIENT:
        raise MagnetError(
            "folds", expected="2 folds or more, or 0 for one a patient", found=str(folds), remedy="ask for 2 or more"
        )
    groups = _slides_by_patient(patients)
    if len(groups) < 2:
        raise MagnetError(
            "folds",
            expected="slides of 2 patients or more",
            found=f"{len(groups)} patient(s) and {len(patients)} slide(s)",
            remedy="give each patient's own name in the column 'patient' of samples.csv, or add slides of another",
        )
    names = sorted(groups)
    named_rng(seed, "folds").shuffle(names)
    names.sort(key=lambda name: len(groups[name]), reverse=True)  # a stable sort: the random order breaks ties
    tested: list[list[str]] = [[] for _ in range(min(folds or len(groups), len(groups)))]
    for name in names:
        min(tested, key=len).extend(groups[name])
    return [
        Fold(index, train=tuple(sorted(patients.keys() - set(test))), test=tuple(sorted(test)))
        for index, test in enumerate(tested)
    ]


def load_or_create_folds(path: Path, patients: Mapping[str, str], *, folds: int = 4, seed: int = 0) -> list[Fold]:
    """Return the folds of `folds.json`, after writing the file if there is none.

    A file that exists is checked and used as it is: its seed is the one that counts, so that runs of several seeds
    share their folds. It may be edited by hand, with its checksum taken out, as long as no slide or patient is on both
    sides of a fold and no slide is tested twice; a slide may be left out of a fold.

    Raises `MagnetError` if the file does not fit `patients` or `folds`, or breaks these rules.
    """
    if not path.exists():
        made = tuple(make_folds(patients, folds=folds, seed=seed))
        content = FoldsFile(seed=seed, requested_folds=folds, patients=dict(patients), folds=made)
        write_sealed(path, content.model_dump(mode="json"))
    stored = _read(path)
    _check_same_slides(path, stored.patients, patients)
    if stored.requested_folds != folds:
        raise MagnetError(path, expected=f"{folds} folds", found=f"{stored.requested_folds}", remedy=REMAKE)
    _check_sides(path, stored)
    return list(stored.folds)


def _slides_by_patient(patients: Mapping[str, str]) -> dict[str, list[str]]:
    groups = defaultdict(list)
    for slide_id in sorted(patients):
        groups[patients[slide_id] or slide_id].append(slide_id)
    return dict(groups)


def _read(path: Path) -> FoldsFile:
    content = read_sealed(path, expected=_OURS, remedy=CORRECT)
    try:
        return FoldsFile.model_validate(content)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        place = ".".join(str(part) for part in first["loc"]) or "the text"
        raise MagnetError(path, expected=_OURS, found=f"{place}: {first['msg']}", remedy=CORRECT) from error


def _check_same_slides(path: Path, stored: Mapping[str, str], given: Mapping[str, str]) -> None:
    differences = {
        "added": given.keys() - stored.keys(),
        "removed": stored.keys() - given.keys(),
        "of another patient": {slide for slide in given.keys() & stored.keys() if given[slide] != stored[slide]},
    }
    changes = [f"{what}: {_listed(slides)}" for what, slides in differences.items() if slides]
    if changes:
        raise MagnetError(
            path, expected="the slides that the folds were made for", found="; ".join(changes), remedy=REMAKE
        )


def _check_sides(path: Path, stored: FoldsFile) -> None:
    if [fold.index for fold in stored.folds] != list(range(len(stored.folds))) or not stored.folds:
        raise MagnetError(
            path,
            expected="folds with the indices 0, 1, …",
            found=_listed([str(fold.index) for fold in stored.folds]) or "no fold",
            remedy=CORRECT,
        )
    for fold in stored.folds:
        _check_fold(f"{path}, fold {fold.index}", fold, stored.patients)
    tested = Counter(slide for fold in stored.folds for slide in fold.test)
    _refuse(path, "each slide tested in one fold at most", [s for s, count in tested.items() if count > 1])


def _check_fold(where: str, fold: Fold, patients: Mapping[str, str]) -> None:
    sides: dict[str, Sequence[str]] = {"train": fold.train, "test": fold.test}
    for side, slides in sides.items():
        if not slides:
            raise MagnetError(where, expected=f"a slide in '{side}'", found="none", remedy=CORRECT)
        _refuse(where, f"only known slides in '{side}'", set(slides) - patients.keys())
        _refuse(where, f"each slide once in '{side}'", [s for s, count in Counter(slides).items() if count > 1])
    _refuse(where, "no slide in both 'train' and 'test'", set(fold.train) & set(fold.test))
    train_patients, test_patients = ({patients[slide] or slide for slide in side} for side in sides.values())
    _refuse(where, "no patient in both 'train' and 'test'", train_patients & test_patients)


def _refuse(where: object, expected: str, offenders: Iterable[str]) -> None:
    if found := _listed(offenders):
        raise MagnetError(where, expected=expected, found=found, remedy=CORRECT)


def _listed(names: Iterable[str]) -> str:
    """List at most five names in order, and say how many more there are."""
    ordered = sorted(names)
    more = f" and {len(ordered) - 5} more" if len(ordered) > 5 else ""
    return ", ".join(ordered[:5]) + more

"""Two processes that are given the same command at once, and sample sheets that have changed since.

In: commands, the shared inputs. Out: rows. One of two writers may be turned away in a line; together they leave what
one would have left. A sheet that says something else than the store never puts one tissue on both sides of a fold.
"""

import csv
import json
import random
import shutil
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from tests.faults.children import Child, Ended, command
from tests.faults.kills import judge_end, judged
from tests.faults.record import Row
from tests.faults.setting import ENCODER, GRIDS, SMALL, Attacked, Base, copy_store

Sheet = list[dict[str, str]]


def two_writers(attacked: Attacked, folder: Path, *, times: int, seed: int) -> Row:
    """Start a command twice in one folder, the second soon after the first."""
    row = Row(f"two writers: {attacked.name}")
    whole = folder / "whole"
    attacked.run_whole(whole)
    truth, seconds = attacked.outcome(whole), attacked.run_whole(whole).seconds
    rng = random.Random(f"{seed} {attacked.name}")
    for _ in range(times):
        work, apart = attacked.fresh(folder / "work"), rng.choice((0.0, rng.uniform(0, seconds)))
        first = attacked.start(work)
        time.sleep(apart)
        second = attacked.start(work, log=folder / "second.log")
        for number, ended in enumerate((first.wait(), second.wait())):
            row.add(*judged(ended, f"writer {number + 1} of 2, {apart:.2f} s apart", {0, 1}))
        judge_end(row, attacked, work, truth, attacked.start(work).wait(), f"two writers {apart:.2f} s apart")
    shutil.rmtree(folder)
    return row.close()


def stale_sheets(base: Base, folder: Path) -> Row:
    """Change a sheet after its slides were extracted, extract again, and look at the folds of a training."""
    row = Row("stale sheets")
    for name, (change, is_wrong) in CHANGES.items():
        shutil.rmtree(folder, ignore_errors=True)
        copy_store(base, folder / "store")
        sheet = folder / "samples.csv"
        rows = _read_sheet(base.sheet)
        extract = ["extract", "run", "--samples", str(sheet), "--store", "store", *ENCODER, *GRIDS]
        write_sheet(sheet, rows)
        known = _run(folder, extract)  # nothing is extracted; the store knows now which sheet names its slides
        write_sheet(sheet, change(rows))
        extracted = _run(folder, extract)
        settings = [part for setting in SMALL for part in ("--set", setting)]
        fit = ["train", "fit", "--store", "store", "--runs", "runs", "--bins", "frozen", *settings,
               "--set", "optim.epochs=1", "--set", "validation.few=none"]  # fmt: skip
        fitted = _run(folder, fit)
        for ended in (known, extracted, fitted):
            if ended.is_foreign:
                row.fail("traceback", f"{name}: {ended.last_line}")
        folds = folder / "runs" / "folds.json"
        sides = json.loads(folds.read_bytes())["folds"] if fitted.code == 0 else []
        row.add("wrong" if any(is_wrong(fold) for fold in sides) else None, f"{name}: folds {sides}")
    shutil.rmtree(folder)
    return row.close()


def _run(folder: Path, line: list[str]) -> Ended:
    return Child(command(line), folder, folder / f"{line[1]}.log").wait()


def _read_sheet(path: Path) -> Sheet:
    """Rows of a sheet, with paths that hold from anywhere."""
    with path.open(newline="", encoding="utf-8") as lines:
        rows = list(csv.DictReader(lines))
    return [row | {name: str(path.parent / row[name]) for name in ("image", "counts")} for row in rows]


def write_sheet(path: Path, rows: Sheet) -> None:
    """Write rows as a sample sheet."""
    with path.open("w", newline="", encoding="utf-8") as lines:
        writer = csv.DictWriter(lines, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def _changed(rows: Sheet, slide: str, change: dict[str, str]) -> Sheet:
    return [row | (change if row["slide_id"] == slide else {}) for row in rows]


def _parts(fold: Mapping[str, list[str]], one: str, other: str) -> bool:
    """Whether two slides stand on different sides of a fold."""
    side = {slide: name for name in ("train", "test") for slide in fold[name]}
    return one in side and other in side and side[one] != side[other]


CHANGES: dict[str, tuple[Callable[[Sheet], Sheet], Callable[[Mapping[str, list[str]]], bool]]] = {
    "S1 is renamed Patient7": (
        lambda rows: _changed([{**row, "patient": ""} for row in rows], "S1", {"slide_id": "Patient7"}),
        lambda fold: _parts(fold, "S1", "Patient7"),
    ),
    "S1 is renamed Patient7, patients are named": (
        lambda rows: _changed(rows, "S1", {"slide_id": "Patient7", "patient": "P9"}),
        lambda fold: _parts(fold, "S1", "Patient7"),
    ),
    "S3 is in the sheet no more": (
        lambda rows: [row for row in rows if row["slide_id"] != "S3"],
        lambda fold: "S3" in {*fold["train"], *fold["test"]},
    ),
    "the patient of S2 is corrected to that of S1": (
        lambda rows: _changed(rows, "S2", {"patient": "P1"}),
        lambda fold: _parts(fold, "S1", "S2"),
    ),
    "the image of S1 stands under another name, too": (
        lambda rows: [*rows, {**rows[0], "slide_id": "S9", "patient": "P9"}],
        lambda fold: _parts(fold, "S1", "S9"),
    ),
}

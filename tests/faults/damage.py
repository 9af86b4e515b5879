"""Files that change while nobody looks: a flipped bit, a cut end, another file in their place.

In: the shared inputs. Out: rows. A reader either sees what was written, or says in one line what is wrong. A bit is
drawn in three steps, so that rare kinds of bytes are hit as often as common ones: a file, a class of bytes, a bit.
"""

import os
import random
import re
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import lmdb

from tests.faults.readers import Seen, read_run, read_store, read_sweep, seen_again, seen_by, verdict
from tests.faults.record import Row
from tests.faults.setting import Attacked, Base, copy_store, finished_study, finished_sweep

META_BYTES = 8192  # LMDB's two meta pages
MOST_OF_A_VALUE = 1 << 16  # of a block's bytes, where a flip falls
CUTS = (0.0, 1.0, 0.5, 0.9)  # shares of a file that are left, beside one byte less and a page less

Span = tuple[int, int]


@dataclass(frozen=True)
class Target:
    """What is damaged, who reads it, and what is read of it while it is whole."""

    name: str
    folder: Path
    see: Callable[[], Seen]
    truth: dict[str, str]
    files: tuple[Path, ...]


def targets(base: Base, folder: Path) -> Iterator[Target]:
    """A store, a trained run, a table with its cells and a sweep, each a copy that may be damaged."""
    store = copy_store(base, folder / "store")
    yield _target("store", store, lambda: seen_by(read_store, store), store.glob("**/*"), {"runs"})
    run = folder / "run"
    shutil.copytree(base.cell, run)
    of_the_run = {"cell.json", "predictions", "blocks", "genes.parquet", "tensorboard"}
    yield _target("run", run, lambda: seen_by(read_run, run), run.glob("*"), of_the_run)
    study = finished_study(base, folder / "study")
    cells = [path for path in (folder / "study" / "runs").rglob("*") if path.suffix not in {".png", ".md", ".tex"}]
    others = {"run.json", "model.safetensors", "tensorboard", "table.txt", "table.csv"}
    yield _target("table", folder / "study", lambda: seen_again(study, folder / "study"), iter(cells), others)
    sweep = finished_sweep(base, folder / "search")
    yield _target("sweep", sweep, lambda: seen_by(read_sweep, sweep), sweep.glob("*"), {"report.html"})


def _target(name: str, folder: Path, see: Callable[[], Seen], paths: Iterator[Path], others: set[str]) -> Target:
    """Look at what is whole, twice: a reader that does not see the same is no witness."""
    truth, again = see(), see()
    if truth.facts is None or truth.facts != again.facts:
        raise RuntimeError(f"{name}: {truth.ended.said}")
    chosen = sorted(path for path in paths if path.is_file() and not {path.name, path.parent.name} & others)
    return Target(name, folder, see, truth.facts, tuple(chosen))


def flip(base: Base, folder: Path, *, flips: dict[str, int], seed: int) -> Iterator[Row]:
    """Flip single bits of each target, so many as `flips` says, one at a time."""
    for target in targets(base, folder):
        rng = random.Random(f"{seed} {target.name}")
        row = Row(f"flipped bits: {target.name}")
        classes: dict[str, int] = {}
        spans = {path: classes_of_bytes(path) for path in target.files}
        for _ in range(flips[target.name]):
            path = rng.choice(target.files)
            kind = rng.choice(sorted(spans[path]))
            first, length = rng.choice(spans[path][kind])
            bit = rng.randrange(8 * length)
            where = f"{path.relative_to(target.folder)}, {kind}, byte {first + bit // 8}, bit {bit % 8}"
            with _changed(target, path, partial(_flip_bit, path, first + bit // 8, 1 << bit % 8)):
                failure, said = verdict(target.see(), target.truth)
            classes[f"{path.suffix[1:]} {kind}"] = classes.get(f"{path.suffix[1:]} {kind}", 0) + 1
            row.add(failure, f"{where}: {said}")
        row.facts["classes"] = classes
        yield row.close()


def truncate(base: Base, folder: Path) -> Iterator[Row]:
    """Cut each file of each target at several places."""
    for target in targets(base, folder):
        row = Row(f"truncated: {target.name}")
        for path in target.files:
            size = path.stat().st_size
            for left in sorted({*(int(share * size) for share in CUTS), size - 1, max(0, size - 4096)} - {size}):
                with _changed(target, path, partial(os.truncate, path, left)):
                    failure, said = verdict(target.see(), target.truth)
                row.add(failure, f"{path.relative_to(target.folder)}, {left} of {size} bytes: {said}")
        yield row.close()


class _changed:
    """A target with one file changed, and as it was again afterwards."""

    def __init__(self, target: Target, path: Path, change: Callable[[], None]) -> None:
        self._whole = target.folder.with_name(f"{target.folder.name}.whole")
        self._target, self._path, self._change = target, path, change

    def __enter__(self) -> None:
        shutil.rmtree(self._whole, ignore_errors=True)
        shutil.copytree(self._target.folder, self._whole, copy_function=os.link)
        content = self._path.read_bytes()
        self._path.unlink()  # the linked one stays
        self._path.write_bytes(content)
        self._change()

    def __exit__(self, *_: object) -> None:
        shutil.rmtree(self._target.folder)
        self._whole.rename(self._target.folder)


def _flip_bit(path: Path, at: int, mask: int) -> None:
    content = bytearray(path.read_bytes())
    content[at] ^= mask
    path.write_bytes(content)


def classes_of_bytes(path: Path) -> dict[str, list[Span]]:
    """Places of each class of bytes in a file, (first byte, length); `anywhere` is all of it."""
    content = path.read_bytes()
    spans = {"anywhere": [(0, len(content))]}
    if path.suffix == ".lmdb":
        spans |= {"meta pages": [(0, META_BYTES)], **_of_lmdb(path, content)}
    elif path.suffix == ".safetensors":
        length = 8 + int.from_bytes(content[:8], "little")
        spans |= {"header": [(0, length)], "weights": [(length, len(content) - length)]}
    elif path.suffix == ".json":
        spans |= {"digits": [match.span() for match in re.finditer(rb"\d+", content)],
                  "letters": [match.span() for match in re.finditer(rb"[A-Za-z]+", content)]}  # fmt: skip
        spans = {kind: [(first, last - first) if kind != "anywhere" else (first, last) for first, last in places]
                 for kind, places in spans.items()}  # fmt: skip
    else:
        spans |= {"head": [(0, min(128, len(content)))], "tail": [(max(0, len(content) - 256), min(256, len(content)))]}
    return {kind: places for kind, places in spans.items() if places and places[0][1] > 0}


def _of_lmdb(path: Path, content: bytes) -> dict[str, list[Span]]:
    """Where an LMDB file has its header, specs, checksums, version and blocks, and the keys of blocks."""
    spans: dict[str, list[Span]] = {}
    with lmdb.open(os.fspath(path), subdir=False, lock=False, readonly=True) as env, env.begin() as txn:
        for key, value in txn.cursor():
            kind = key.split(b"/")[0].decode("ascii", "replace")
            region = key + value if content.find(key + value) >= 0 else value
            if region and (at := content.find(region)) >= 0:
                spans.setdefault(kind, []).append((at, min(len(region), MOST_OF_A_VALUE)))
            if kind == "block" and (at := content.find(key)) >= 0:
                spans.setdefault("keys of blocks", []).append((at, len(key)))
    return spans


def _exchange(one: Path, other: Path) -> None:
    between = one.with_name(f"{one.name}.between")
    one.rename(between)
    other.rename(one)
    between.rename(other)


def swap(base: Base, folder: Path, attacked: Attacked) -> Row:
    """Exchange whole files and folders that are each as they were written; the reader goes by their names."""
    row = Row("swapped: files and folders")
    store = copy_store(base, folder / "store")
    truth = seen_by(read_store, store).facts or {}
    pairs = [(store / "S1", store / "S2"), (store / "S3", store / "S2")]
    pairs += [
        (store / one / "geometry.lmdb", store / other / "geometry.lmdb") for one, other in (("S1", "S2"), ("S2", "S3"))
    ]
    of_slide = {slide: next(path for path in (store / slide).glob("*.lmdb") if path.name != "geometry.lmdb")
                for slide in ("S1", "S2", "S3")}  # fmt: skip
    pairs += [(of_slide["S1"], of_slide["S2"]), (of_slide["S3"], of_slide["S1"])]
    for one, other in pairs:
        _exchange(one, other)
        row.add(*_said(verdict(seen_by(read_store, store), truth), one, other))
        _exchange(one, other)
    _swap_in_runs(row, base, folder, attacked)
    return row.close()


def _swap_in_runs(row: Row, base: Base, folder: Path, attacked: Attacked) -> None:
    """Exchange weights and descriptions of two trainings, and predictions of two systems."""
    other = folder / "other"
    attacked.run_whole(other)
    [second] = (other / "runs" / "cells").glob("magnet-*")
    first = folder / "first"
    shutil.copytree(base.cell, first)
    truth = seen_by(read_run, first).facts or {}
    for name in ("model.safetensors", "run.json"):
        _exchange(first / name, second / name)
        row.add(*_said(verdict(seen_by(read_run, first), truth), first / name, second / name))
        _exchange(first / name, second / name)
    study = finished_study(base, folder / "study")
    whole = seen_again(study, folder / "study").facts or {}
    cells = sorted((folder / "study" / "runs" / "cells").glob("[!n]*"))
    for part in ("predictions/S2.npy", "blocks/S2.npz", "genes.parquet", "cell.json", "."):
        one, two = (cell / part for cell in cells[:2])
        _exchange(one.resolve(), two.resolve())
        row.add(*_said(verdict(seen_again(study, folder / "study"), whole), one, two))
        shutil.rmtree(folder / "study")
        finished_study(base, folder / "study")


def _said(outcome: tuple[str | None, str], one: Path, other: Path) -> tuple[str | None, str]:
    failure, said = outcome
    return failure, f"{one.parent.name}/{one.name} and {other.parent.name}/{other.name}: {said}"

"""The commands under attack, each with the smallest data on which it does all that it does on large ones.

In: a seed. Out: slides, a store, a trained run and features of another tool, which no attack changes; and the commands,
each with what a fresh folder for it holds and with what counts of what it leaves.
"""

import csv
import json
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from tests.faults.children import Child, Ended, command, run_and_learn
from tests.faults.facts import facts_of

BACKBONE = "timm:test_convnext"
SLIDES = ("S1", "S2", "S3")
GRIDS = [
    "--tokens",
    "2",
    "--own",
    "2",
    "--targets",
    "8",
    "--bins",
    "150",
    "--spots",
    "25",
    "--set",
    "geometry.window=10",
]
ENCODER = ["--backbone", BACKBONE, "--weights", "random", "--device", "cpu", "--workers", "1"]
SMALL = [
    f"data.backbone={BACKBONE}", "data.panel=20", "optim.name=adamw", "optim.lr=3e-3", "optim.batch_size=64",
    "model.width=32", "baselines=false", "compute.checkpoint_minutes=0", "device=cpu",
]  # fmt: skip
SWEEP = """
[settings]
data.panel = 20
optim = {name = "adamw", epochs = 2, batch_size = 64}
model.width = 32
compute.checkpoint_minutes = 0
[space]
"optim.lr" = {low = 1e-3, high = 1e-2, log = true}
[search]
pruner = "none"
startup = 2
"""
KEPT_ROWS = ("whole", "refused", "pruned")


@dataclass(frozen=True)
class Base:
    """Inputs that all attacks share, below one folder."""

    folder: Path

    @property
    def sheet(self) -> Path:
        return self.folder / "data" / "samples.csv"

    @property
    def store(self) -> Path:
        return self.folder / "store"

    @property
    def runs(self) -> Path:
        return self.folder / "runs"

    @property
    def features(self) -> Path:
        return self.folder / "spots.h5"

    @property
    def cell(self) -> Path:
        """The one trained cell of `runs`."""
        [cell] = (self.runs / "cells").glob("magnet-*")
        return cell

    @property
    def gene(self) -> str:
        """A gene of the run's panel."""
        return str(json.loads((self.cell / "run.json").read_bytes())["panel"]["name"][0])


@dataclass(frozen=True)
class Attacked:
    """A command, what its folder holds before, and facts of what it leaves.

    changes  the folder, below that of the command, which it writes to
    """

    name: str
    line: list[str]
    changes: str
    prepare: Callable[[Path], None] = field(default=lambda folder: None)
    facts: Callable[[Path], dict[str, str]] = facts_of

    def fresh(self, folder: Path) -> Path:
        """Make an empty folder as the command finds it."""
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        self.prepare(folder)
        return folder

    def start(self, folder: Path, befalls: Callable[[], None] = lambda: None, *, log: Path | None = None) -> Child:
        """Start it in a folder, after what befalls the process; its log lies beside the folder, or elsewhere."""
        return Child(self._after(befalls), folder, log or folder.with_suffix(".log"))

    def run_whole(self, folder: Path, befalls: Callable[[], None] = lambda: None) -> Ended:
        """Run it in a fresh folder with nothing to stop it; one that fails at this is no subject of an attack."""
        self.fresh(folder)
        ended = run_and_learn(self._after(befalls), folder, folder.with_suffix(".log"))
        if ended.code != 0:
            raise RuntimeError(f"{self.name}: {ended.said}")
        return ended

    def _after(self, befalls: Callable[[], None]) -> Callable[[], None]:
        run = command(self.line)

        def work() -> None:
            befalls()
            run()

        return work

    def outcome(self, folder: Path) -> dict[str, str]:
        """Facts of what it has left."""
        return self.facts(folder / self.changes)


def make_base(folder: Path) -> Base:
    """Make the shared inputs by the commands themselves."""
    base, options = Base(folder), [part for setting in SMALL for part in ("--set", setting)]
    if base.features.exists():  # the last that is made
        return base
    folder.mkdir(parents=True, exist_ok=True)
    sheet, store, runs = map(str, (base.sheet, base.store, base.runs))
    lines = [
        ["extract", "synth", str(base.sheet.parent), "--slides", "3", "--seed", "3", "--size-mm", "0.4",
         "--genes", "60"],
        ["extract", "run", "--samples", sheet, "--store", store, *ENCODER, *GRIDS],
        ["train", "fit", "--store", store, "--runs", runs, "--name", "fit", "--bins", "frozen", *options,
         "--set", "optim.epochs=1", "--set", "validation.few=none"],
    ]  # fmt: skip
    export = ["cache", "export", store, "--slide", "S1", "--level", "spot", "--to", str(base.features)]
    for line in (*lines, None, export):
        line = line or study_line(base, base.runs)  # whose gene is one that the fit has chosen
        ended = run_and_learn(command(line), folder, folder / "make.log")
        if ended.code != 0:
            raise RuntimeError(f"{' '.join(line)}: {ended.said}")
    return base


def commands(base: Base) -> dict[str, Attacked]:
    """All commands that are attacked, by their names in the record."""
    sheet, store = str(base.sheet), str(base.store)
    settings = [part for setting in SMALL for part in ("--set", setting)]
    fit = ["train", "fit", "--store", store, "--runs", "runs", *settings]
    frozen = [*fit, "--name", "fit", "--bins", "frozen", "--set", "optim.epochs=2"]
    tuned = [*fit, "--name", "fit", "--bins", "finetuned", "--set", "optim.epochs=1", "--set", "validation.few=none"]
    search = ["train", "sweep", "sweep.toml", "--trials", "2", "--store", store, "--runs", "runs"]
    search += ["--backbone", BACKBONE, "--device", "cpu"]
    predict = ["train", "predict", "runs/fit", "--slide", "all", "--store", store, "--overwrite", "--device", "cpu"]
    imports = ["cache", "import", str(base.features), "--store", "store", "--slide", "S1", "--level", "spot"]
    listed = [
        Attacked("extract run", ["extract", "run", "--samples", sheet, "--store", "store", *ENCODER, *GRIDS], "store",
                 facts=_facts_of_store),
        Attacked("train fit frozen", frozen, "runs"),
        Attacked("train fit fine-tuned", tuned, "runs"),
        Attacked("train predict", predict, "runs", prepare=lambda folder: _copy(base.runs, folder / "runs")),
        Attacked("train sweep", search, "runs", prepare=_write_sweep, facts=_facts_of_sweep),
        Attacked("cache import", [*imports, "--backbone", "other"], "store",
                 prepare=lambda folder: _copy_one_slide(base, folder / "store"), facts=_facts_of_store),
    ]  # fmt: skip
    return {each.name: each for each in listed}


def study_line(base: Base, runs: Path | str) -> list[str]:
    """A table of two systems, MagNet's cell being that of the fit, which also reads its predictions."""
    options = [part for setting in SMALL if setting != "baselines=false" for part in ("--set", setting)]
    learnt = ["--set", "optim.epochs=1", "--set", "validation.few=none"]
    return ["train", "study", "baselines", "--systems", "magnet,gene_mean", "--targets", "8", "--folds", "0",
            "--genes", base.gene, "--name", "table", "--store", str(base.store), "--runs", str(runs),
            *options, *learnt]  # fmt: skip


def finished_study(base: Base, folder: Path) -> Attacked:
    """Copy a finished table with its cells into a folder; return the command that made it, to be given again there."""
    _copy(base.runs, folder / "runs")
    return Attacked("train study", study_line(base, "runs"), "runs/table")


def finished_sweep(base: Base, folder: Path) -> Path:
    """Run a sweep to its end in a folder; return the folder of its results."""
    attacked = commands(base)["train sweep"]
    attacked.run_whole(folder)
    return folder / attacked.changes / "sweep"


def copy_store(base: Base, to: Path, *slides: str) -> Path:
    """Copy the store with the files of some slides, by default of all."""
    to.mkdir(parents=True)
    shutil.copy(base.store / "store.json", to)
    for slide in slides or SLIDES:
        _copy(base.store / slide, to / slide)
    return to


def _copy(source: Path, to: Path) -> None:
    shutil.copytree(source, to, copy_function=shutil.copyfile)


def _copy_one_slide(base: Base, to: Path) -> None:
    copy_store(base, to, "S1")


def _write_sweep(folder: Path) -> None:
    (folder / "sweep.toml").write_text(SWEEP, encoding="utf-8")


def _facts_of_store(folder: Path) -> dict[str, str]:
    return facts_of(folder, ignoring=("runs/",))  # records of each call


def _facts_of_sweep(folder: Path) -> dict[str, str]:
    """Facts of a sweep; of its trials the values that were drawn and what came out, in the order of that."""
    facts = facts_of(folder, ignoring=("sweep/report.html", "sweep/trials/"))
    with (folder / "sweep" / "trials.csv").open(newline="", encoding="utf-8") as lines:
        rows = [row for row in csv.DictReader(lines) if KEPT_ROWS[0] in row.values()]
    told = sorted(";".join(f"{name}={row[name]}" for name in row if name not in {"trial", "seconds"}) for row in rows)
    return facts | {f"trial {number}": row for number, row in enumerate(told)}


def has_finished(folder: Path) -> set[str]:
    """Names of files in a folder that say of themselves that they are whole."""
    whole = (".lmdb", ".h5ad", "cell.json", "study.json", "sweep.json", "model.safetensors")
    paths = (path for path in folder.rglob("*") if path.name.endswith(whole) and path.is_file())
    return {os.fspath(path.relative_to(folder)) for path in paths}

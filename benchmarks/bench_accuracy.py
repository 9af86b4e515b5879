"""All claims of accuracy in one go: shares of the oracle, ablations, seams, rivals; resumable, hours on two CPU cores.

In: a folder to work in and, for seams on real H&E, a folder of sections (see `semisynthetic.py`). Out: rows of what,
ratio, goal, holds in `results/accuracy.json`, and the table of ablations in `results/ablations.json`. Each step is a
command that anyone may give; what is made, extracted, fitted or predicted already is not done again.

    python benchmarks/bench_accuracy.py bench-accuracy --sections SECTIONS
"""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import polars as pl
import typer

HERE = Path(__file__).resolve().parent
BACKBONE = "timm:test_mambaout"
EXTRACT = ["extract", "run", "--backbone", BACKBONE, "--weights", "random"]
SAMPLED = ["--targets", "8", "--bins", "3000", "--spots", "400"]
TEST_OF_FOLD_0 = ("S2", "S6")
BEFORE = ["--before", "data.own=false", "--before", "data.contexts=paired"]
CLASSES = ("housekeeping", "marker", "domain", "boundary")
FROZEN_GOAL, CLASS_GOAL, TRAINED_GOAL = 0.72, 0.62, 0.75
TRAINED_EPOCHS = 10
PATIENCE = 20  # epochs without a better score on held-out patients, for every system alike

Row = dict[str, Any]


def main(folder: Path = Path("bench-accuracy"), sections: Path | None = None, results: Path = HERE / "results") -> None:
    """Run all steps, collect their rows, and write them."""
    folder.mkdir(parents=True, exist_ok=True)
    prepare(folder)
    rows = shares_of_the_oracle(folder, results)
    rows += seams(folder, "synthetic", folder / "data", "--fold", "0")
    if sections is not None:
        rows += seams_on_real_sections(folder, sections)
    rows += gains_over_rivals(folder)
    for row in rows:
        print(f"{row['what']}: {row['ratio']} (goal {row['goal']}, holds: {row['holds']})")
    (results / "accuracy.json").write_text(json.dumps(rows, indent=2, ensure_ascii=False) + "\n")


def prepare(folder: Path) -> None:
    """Make eight synthetic slides of four patients, and extract them: a sample of all, every bin of two."""
    if not (folder / "data" / "samples.csv").exists():
        command("extract", "synth", folder / "data", "--slides", 8, "--seed", 1, "--size-mm", 1.0)
    samples = ["--samples", folder / "data" / "samples.csv"]
    command(*EXTRACT, *samples, "--store", folder / "store", *SAMPLED)
    some = [part for slide_id in TEST_OF_FOLD_0 for part in ("--slide", slide_id)]
    command(*EXTRACT, *samples, "--store", folder / "store-all", "--targets", 8, "--sampling", "all", *some)


def shares_of_the_oracle(folder: Path, results: Path) -> list[Row]:
    """PCC per gene of the model as a share of the oracle's, with frozen features and with the encoder trained."""
    data, store, runs = folder / "data", folder / "store", folder / "runs"
    frozen, trained = folder / "frozen.json", folder / "trained.json"
    script("accuracy.py", data, store, "--runs", runs, "--variants", "full", "--out", frozen)
    all_epochs = ["--set", "validation.share=0"]  # the same number for every variant
    script("accuracy.py", data, store, "--runs", folder / "ablations", *all_epochs, "--out", results / "ablations.json")
    settings = [*all_epochs, "--set", "encoder.mode=full", "--set", f"optim.epochs={TRAINED_EPOCHS}"]
    script("accuracy.py", data, store, "--runs", folder / "trained", "--variants", "full", *settings, "--out", trained)
    of_frozen, of_trained = (
        next(row for row in json.loads(path.read_text()) if row["system"] == "full") for path in (frozen, trained)
    )
    rows = [at_least("full model ÷ oracle, frozen random features", of_frozen["all ÷ oracle"], FROZEN_GOAL)]
    rows += [at_least(f"... of {each} genes", of_frozen[f"{each} ÷ oracle"], CLASS_GOAL) for each in CLASSES]
    return [*rows, at_least("full model ÷ oracle, encoder trained", of_trained["all ÷ oracle"], TRAINED_GOAL)]


def seams(folder: Path, name: str, data: Path, *options: object) -> list[Row]:
    """Jumps of predictions across borders of tiles ÷ inside, on every bin of held-out slides."""
    stores = {"synthetic": (folder / "store", folder / "store-all")}
    store, everything = stores.get(name, (folder / f"store-{name}", folder / f"store-{name}-all"))
    out, picture = folder / f"seams-{name}.json", HERE / f"seams-{name}.png"
    arguments = [data, store, "--everything", everything, "--runs", folder / f"runs-seams-{name}", *BEFORE, *options]
    script("seams.py", *arguments, "--out", out, "--picture", picture)
    rows: list[Row] = json.loads(out.read_text())
    return [row | {"what": f"{name}: {row['what']}"} for row in rows if "after" in row["what"] and row["goal"]]


def seams_on_real_sections(folder: Path, sections: Path) -> list[Row]:
    """Seams on real H&E with counts drawn from it: one section held out, two of another patient learnt from."""
    data = folder / "real"
    if not (data / "samples.csv").exists():
        script("semisynthetic.py", sections, data)
    samples = ["--samples", data / "samples.csv", "--targets", 8]
    command(*EXTRACT, *samples, "--store", folder / "store-real", "--bins", 6000, "--spots", 400)
    held_out = ["--sampling", "all", "--slide", "B4"]
    command(*EXTRACT, *samples, "--store", folder / "store-real-all", *held_out)
    return seams(folder, "real", data, "--fold", "1", "--set", "data.panel=180")


def gains_over_rivals(folder: Path) -> list[Row]:
    """What MagNet gains over each other system on the same features: with all its interval, at 55 µm by itself."""
    data, store = folder / "study-data", folder / "study-store-matched"
    if not (data / "samples.csv").exists():
        command("extract", "synth", data, "--slides", 8, "--size-mm", 1.0)
    size = ["--bins", 3000, "--spots", 400, "--tokens", 2, "--stain", "matched"]  # gained on slides of no table
    command(*EXTRACT, "--samples", data / "samples.csv", "--store", store, *size)
    study = ["--store", store, "--runs", folder / "study-matched", "--backbone", BACKBONE, "--set", "data.panel=100"]
    study += ["--set", f"validation.patience={PATIENCE}"]  # rivals learn for up to 100 epochs, most are best in a few
    command("train", "study", "baselines", *study, "--recipe", "recipes/study-small.toml")
    table = pl.read_csv(folder / "study-matched" / "study-baselines" / "table.csv")
    rows = []
    for row in table.drop_nulls("ours_minus_system_mean").iter_rows(named=True):
        is_of_spots = row["group"].startswith("55")
        gain = row["ours_minus_system_mean" if is_of_spots else "ours_minus_system_low"]
        what = f"MagNet − {row['system']}, {row['group']}" + ("" if is_of_spots else ", lower end of the 95 % interval")
        rows.append(at_least(what, round(gain, 4), 0.0))
    return rows


def at_least(what: str, ratio: float, goal: float) -> Row:
    """A row that holds from its goal on."""
    return {"what": what, "ratio": ratio, "goal": goal, "holds": ratio >= goal}


def command(package: str, *arguments: object) -> None:
    """Run a command of the project; its messages go where ours go."""
    subprocess.run([sys.executable, "-m", package, *map(str, arguments)], check=True)


def script(name: str, *arguments: object) -> None:
    """Run a script beside this one."""
    subprocess.run([sys.executable, str(HERE / name), *map(str, arguments)], check=True)


if __name__ == "__main__":
    typer.run(main)

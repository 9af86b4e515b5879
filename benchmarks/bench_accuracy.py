"""All claims of accuracy in one go: shares of the oracle, seams, rivals; resumable, hours on two CPU cores.

In: a folder to work in and, for seams on real H&E, a folder of sections (see `semisynthetic.py`). Out: rows of what,
ratio, goal, holds in `results/accuracy.json`, written anew after each part with the rows of all that are done. Each
step is a command that anyone may give; what is made, extracted, fitted or predicted already is not done again.

    python benchmarks/bench_accuracy.py bench-accuracy --sections SECTIONS
    python benchmarks/bench_accuracy.py bench-accuracy --parts rivals-16,rivals-55
"""

import json
import subprocess
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import polars as pl
import typer

HERE = Path(__file__).resolve().parent
BACKBONE = "timm:test_mambaout"
SAMPLED = ["--targets", "8", "--bins", "3000", "--spots", "400"]
TEST_OF_FOLD_0 = ("S2", "S6")
BEFORE = ["--before", "data.own=false", "--before", "data.contexts=paired"]
CLASSES = ("housekeeping", "marker", "domain", "boundary")
FROZEN_GOAL, CLASS_GOAL, TRAINED_GOAL = 0.78, 0.62, 0.82
SEEDS = 3  # of the shares, and of ablations
MATCHED = ["--stain", "matched"]  # gained on slides of no table, as the next did
VIEWS = ["--views", "8"]
ALL_EPOCHS = ["--set", "validation.share=0"]  # the same number for every variant
PATIENCE = 20  # epochs without a better score on held-out patients, for every system alike
PARTS = (
    "shares-frozen", "shares-trained", "seams-synthetic", "seams-real",
    "rivals-8", "rivals-16", "rivals-55",
)  # fmt: skip
SHARES = {"frozen": "frozen random features", "full": "encoder trained"}

Row = dict[str, Any]


def main(
    folder: Annotated[Path, typer.Argument()] = Path("bench-accuracy"),
    sections: Path | None = None,
    parts: Annotated[str, typer.Option(help="which to do, by comma; the others' rows stay")] = ",".join(PARTS),
    results: Path = HERE / "results",
) -> None:
    """Do the parts in turn, and write the rows of each as soon as it is done."""
    folder.mkdir(parents=True, exist_ok=True)
    makers: dict[str, Callable[[], list[Row]]] = {
        "shares-frozen": partial(shares_of_the_oracle, folder, "frozen", FROZEN_GOAL),
        "shares-trained": partial(shares_of_the_oracle, folder, "full", TRAINED_GOAL),
        "seams-synthetic": partial(seams_on_synthetic_slides, folder),
        "seams-real": partial(seams_on_real_sections, folder, sections),
        **{f"rivals-{target}": partial(gains_over_rivals, folder, target) for target in (8, 16, 55)},
    }
    out = results / "accuracy.json"
    done: list[Row] = json.loads(out.read_text()) if out.exists() else []
    for part in parts.split(","):
        if part == "seams-real" and sections is None:
            print("seams-real: left out, no --sections given")
            continue
        of_part = [{"part": part, **row} for row in makers[part]()]
        for row in of_part:
            print(f"{row['what']}: {row['ratio']} (goal {row['goal']}, holds: {row['holds']})")
        done = [row for row in done if row["part"] in PARTS and row["part"] != part] + of_part
        done.sort(key=lambda row: PARTS.index(row["part"]))
        out.write_text(json.dumps(done, indent=2, ensure_ascii=False) + "\n")


def extraction(backbone: str = BACKBONE) -> list[str]:
    """The command that extracts slides by an encoder of drawn weights."""
    return ["extract", "run", "--backbone", backbone, "--weights", "random"]


def extracted(
    data: Path, store: Path, *settings: object, seed: int = 0, backbones: Sequence[str] = (BACKBONE,)
) -> Path:
    """Make eight synthetic slides of four patients, and extract them; returns the store."""
    samples = data / "samples.csv"
    if not samples.exists():
        command("extract", "synth", data, "--slides", 8, "--seed", seed, "--size-mm", 1.0)
    for backbone in backbones:
        command(*extraction(backbone), "--samples", samples, "--store", store, *settings)
    return store


def prepare(folder: Path, name: str = "store-views", *settings: object) -> Path:
    """Extract a sample of the slides that have an oracle, by default as it learns best; returns the store."""
    return extracted(folder / "data", folder / name, *(settings or (*SAMPLED, *MATCHED, *VIEWS)), seed=1)


def prepare_study(folder: Path) -> Path:
    """Extract the slides on which systems are compared; returns the store."""
    size = ["--bins", 3000, "--spots", 400, "--tokens", 2, *MATCHED]
    return extracted(folder / "study-data", folder / "study-store-matched", *size)


def shares_of_the_oracle(folder: Path, mode: str, goal: float) -> list[Row]:
    """PCC per gene of the model as a share of the oracle's, mean over seeds, and of the mean of their predictions."""
    out, title = folder / f"shares-{mode}.json", SHARES[mode]
    stores = [folder / "data", prepare(folder), "--runs", folder / "shares"]
    settings = ["--mode", mode, "--variants", "full", "--seeds", SEEDS, *ALL_EPOCHS]
    script("accuracy.py", *stores, *settings, "--out", out)
    of_full, of_mean = row_of(out, "full"), row_of(out, f"full, mean of {SEEDS} predictions")
    rows = [at_least(f"full model ÷ oracle, {title}", of_full["all ÷ oracle"], goal)]
    rows += [at_least(f"... of {each} genes", of_full[f"{each} ÷ oracle"], CLASS_GOAL) for each in CLASSES]
    low = -of_mean["full - system"][2]
    return [
        *rows,
        at_least(f"mean of {SEEDS} predictions ÷ oracle, {title}", of_mean["all ÷ oracle"], goal),
        at_least("... what it gains over one, lower end of the 95 % interval", round(low, 4), 0.0),
    ]


def row_of(table: Path, system: str) -> Row:
    """The row of a system in a table of `accuracy.py`."""
    rows: list[Row] = json.loads(table.read_text())
    return next(row for row in rows if row["system"] == system)


def seams(folder: Path, name: str, data: Path, store: Path, everything: Path, *options: object) -> list[Row]:
    """Jumps of predictions across borders of tiles ÷ inside, on every bin of held-out slides."""
    out, picture = folder / f"seams-{name}.json", HERE / f"seams-{name}.png"
    arguments = [data, store, "--everything", everything, "--runs", folder / f"runs-seams-{name}", *BEFORE, *options]
    script("seams.py", *arguments, "--out", out, "--picture", picture)
    rows: list[Row] = json.loads(out.read_text())
    return [row | {"what": f"{name}: {row['what']}"} for row in rows if "after" in row["what"] and row["goal"]]


def seams_on_synthetic_slides(folder: Path) -> list[Row]:
    """Seams on the synthetic slides: those of one patient held out."""
    held_out = [part for slide_id in TEST_OF_FOLD_0 for part in ("--slide", slide_id)]
    store = prepare(folder, "store", *SAMPLED)
    everything = prepare(folder, "store-all", "--targets", 8, "--sampling", "all", *held_out)
    return seams(folder, "synthetic", folder / "data", store, everything, "--fold", "0")


def seams_on_real_sections(folder: Path, sections: object) -> list[Row]:
    """Seams on real H&E with counts drawn from it: one section held out, two of another patient learnt from."""
    data = folder / "real"
    if not (data / "samples.csv").exists():
        script("semisynthetic.py", sections, data)
    samples = ["--samples", data / "samples.csv", "--targets", 8]
    store, everything = folder / "store-real", folder / "store-real-all"
    command(*extraction(), *samples, "--store", store, "--bins", 6000, "--spots", 400)
    command(*extraction(), *samples, "--store", everything, "--sampling", "all", "--slide", "B4")
    return seams(folder, "real", data, store, everything, "--fold", "1", "--set", "data.panel=180")


def gains_over_rivals(folder: Path, target: int) -> list[Row]:
    """What MagNet gains over each other system on the same features: with all its interval, at 55 µm by itself."""
    store, runs = prepare_study(folder), folder / "study-matched"
    name = f"{target}um"
    study = ["--store", store, "--runs", runs, "--name", name, "--targets", target, "--backbone", BACKBONE]
    study += ["--set", "data.panel=100"]
    study += ["--set", f"validation.patience={PATIENCE}"]  # rivals learn for up to 100 epochs, most are best in a few
    command("train", "study", "baselines", *study, "--recipe", "recipes/study-small.toml")
    rows = []
    for row in pl.read_csv(runs / name / "table.csv").drop_nulls("ours_minus_system_mean").iter_rows(named=True):
        is_of_spots = target == 55
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

"""Tables 1 to 4 of the paper on eight synthetic slides, encoders frozen and fine-tuned, in one resumable command.

In: a folder to work in, which `bench_accuracy.py` shares. Out: the tables as `train study` writes them, with the hours
that one process took for their cells, in `results/tables/`, each as soon as it is done. Each step is a command that
anyone may give; what is computed already is not computed again, also where tables have cells in common.

    python benchmarks/bench_tables.py bench-accuracy --jobs 2
    python benchmarks/bench_tables.py bench-accuracy --parts frozen-blocks,frozen-levels
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import polars as pl
import typer
from bench_accuracy import BACKBONE, HERE, PATIENCE, command, prepare_study

from train.places import CELL, TABLE, find_cell, read_result

SECOND_BACKBONE = "timm:test_resnet"
STUDIES = {"baselines": [], "blocks": [], "levels": [], "backbones": ["--backbones", f"{BACKBONE},{SECOND_BACKBONE}"]}
MODES = {"frozen": [], "finetuned": ["--finetune"]}
PARTS = tuple(f"{mode}-{study}" for mode in MODES for study in STUDIES)
HOUR = 3600.0


def main(
    folder: Annotated[Path, typer.Argument()] = Path("bench-accuracy"),
    parts: Annotated[str, typer.Option(help="which to make, by comma")] = ",".join(PARTS),
    jobs: int = 1,
    results: Path = HERE / "results" / "tables",
) -> None:
    """Make the tables in turn."""
    results.mkdir(parents=True, exist_ok=True)
    prepare_study(folder)
    for part in parts.split(","):
        mode, _, study = part.partition("-")
        runs, store = folder / "study-matched", folder / "study-store-matched"
        if study == "backbones":
            prepare_study(folder, SECOND_BACKBONE)
        options = ["--store", store, "--runs", runs, "--name", part, "--jobs", jobs, "--backbone", BACKBONE]
        options += ["--set", "data.panel=100", "--set", f"validation.patience={PATIENCE}"]
        options += ["--recipe", "recipes/study-small.toml", *STUDIES[study], *MODES[mode]]
        command("train", "study", study, *options)
        write(runs / part, results / f"{part}.json")


def write(folder: Path, out: Path) -> None:
    """Keep the rows of a table, and the hours of its cells by one process each."""
    record = read_result(folder / TABLE, ("rows",))
    rows = pl.read_csv(folder / "table.csv").to_dicts()
    content = {"hours": round(hours(folder, record["rows"]), 2), "rows": rows}
    out.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n")
    print(f"{out}: {content['hours']} hours of cells")


def hours(folder: Path, rows: Sequence[dict[str, Any]]) -> float:
    """Hours that the cells of a table took, each once."""
    cells = {find_cell(cell, folder) for row in rows for cell in row["cells"]}
    return sum(read_result(cell / CELL, ("seconds",))["seconds"] for cell in cells) / HOUR


if __name__ == "__main__":
    typer.run(main)

"""Tables 1 to 4 of the paper on eight synthetic slides, encoders frozen and fine-tuned, in one resumable command.

In: a folder to work in. Out: the tables as `train study` writes them, with the hours that one process took for their
cells, in `results/tables/`, each as soon as it is done; and ablations with three seeds beside an oracle, by
`accuracy.py`. Each step is a command that anyone may give; what is computed already is not computed again, also where
tables have cells in common. A tenth of the bins of each slide are used, in two windows, so that all of it takes hours
on two cores.

In Table 1 one of the three training patients chooses the epoch of every system, which is then not trained again with
that patient: half the time. Where encoders are trained, rivals that have one get six epochs of bins, or as many spots,
MagNet its four epochs. Tables 2 to 4 have MagNet alone, as in `quick.toml`: all its epochs are trained, the same number
for every row.

    python benchmarks/bench_tables.py bench-tables --jobs 2
    python benchmarks/bench_tables.py bench-tables --parts frozen-blocks,frozen-levels
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import polars as pl
import typer
from bench_accuracy import ALL_EPOCHS, BACKBONE, HERE, MATCHED, SEEDS, VIEWS, command, extracted, script

from train.places import CELL, TABLE, find_cell, read_result

SECOND_BACKBONE = "timm:test_resnet"
BACKBONES = (BACKBONE, SECOND_BACKBONE)
SAMPLED = ["--bins", "1152", "--spots", "400", "--tokens", "2"]
OURS = ["--recipe", "recipes/quick.toml", *ALL_EPOCHS]
CHOSEN = ["--recipe", "recipes/study-small.toml", "--set", "validation.patience=5", "--set", "validation.refit=false"]
STUDIES = {
    "baselines": CHOSEN,
    "blocks": OURS,
    "levels": OURS,
    "backbones": [*OURS, "--backbones", ",".join(BACKBONES)],
}
FINETUNED = "--finetune"
RIVALS_TRAINED = (
    "st_net.lr=1e-6",  # as published; 3e-6 diverges
    "bleep.batch_size=128",  # of 512, six epochs were 54 steps
    "histogene.pixel_side=56",  # half of the published, in half the time
)
ABLATED = "full,no multires,no consistency,random batches,halo in training"


def rivals(epochs: int) -> list[str]:
    """Settings of the rivals where encoders are trained, those that have one for so many epochs."""
    of_encoders = [f"{name}.epochs={epochs}" for name in ("st_net", "egn", "bleep", "triplex")]
    return [word for each in (*of_encoders, *RIVALS_TRAINED) for word in ("--set", f"rivals.{each}")]


ABLATIONS = "ablations"
PARTS: dict[str, list[str]] = {
    **{f"frozen-{study}": [study, *options] for study, options in STUDIES.items()},
    "frozen-ablations": [ABLATIONS, "--variants", f"{ABLATED},no gat,neither gat nor multires"],
    "finetuned-baselines": ["baselines", *CHOSEN, FINETUNED, "--targets", "8,16", *rivals(epochs=6)],
    "finetuned-spots": ["baselines", *CHOSEN, FINETUNED, "--targets", "55", *rivals(epochs=18)],
    **{f"finetuned-{study}": [study, *STUDIES[study], FINETUNED] for study in ("blocks", "levels", "backbones")},
    "finetuned-ablations": [ABLATIONS, "--mode", "full", "--variants", ABLATED],
}
HOUR = 3600.0


def main(
    folder: Annotated[Path, typer.Argument()] = Path("bench-tables"),
    parts: Annotated[str, typer.Option(help="which to make, by comma")] = ",".join(PARTS),
    jobs: int = 1,
    results: Path = HERE / "results" / "tables",
) -> None:
    """Make the tables in turn."""
    results.mkdir(parents=True, exist_ok=True)
    settings = [*SAMPLED, *MATCHED, *VIEWS]
    store = extracted(folder / "data", folder / "store", *settings, backbones=BACKBONES)
    runs = folder / "runs"
    for part in parts.split(","):
        study, *own = PARTS[part]
        common = ["--runs", runs, "--jobs", jobs, "--backbone", BACKBONE, "--set", "data.panel=100", *own]
        if study == ABLATIONS:
            seeds = ["--seeds", SEEDS, *ALL_EPOCHS]
            script("accuracy.py", folder / "data", store, *common, *seeds, "--out", results / f"{part}.json")
        else:
            command("train", "study", study, "--store", store, "--name", part, *common)
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

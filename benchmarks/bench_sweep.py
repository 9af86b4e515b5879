"""A sweep of 16 trials on frozen bins against one fold with the bin encoder fine-tuned, on the same data and epochs.

In: nothing; synthetic slides are made and extracted first. Out: the ratio of the two, each timed as a whole process,
start-up and all; the limit is 1.

    python benchmarks/bench_sweep.py --out benchmarks/results/sweep.json
"""

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import typer

SWEEP = """
[settings]
model.width = 128
optim = {{ name = "adamw", epochs = {epochs}, batch_size = 64, clip_norm = 1.0, warmup = 0.1 }}

[space]
"optim.lr" = {{ low = 1e-4, high = 1e-2, log = true }}
"optim.weight_decay" = {{ low = 1e-4, high = 1e-1, log = true }}
"model.rounds" = {{ low = 1, high = 3 }}
"model.dropout" = {{ low = 0.0, high = 0.4 }}

[search]
pruner = "none"
"""


def main(
    backbone: str = "timm:resnet18", trials: int = 16, epochs: int = 4, bins: int = 800, out: Path | None = None
) -> None:
    """Make the data, run both, print the ratio."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        command("extract", "synth", root / "data", "--slides", 4, "--size-mm", 0.8)
        store = ["--store", root / "store", "--backbone", backbone]
        extraction = ["--weights", "random", "--targets", 8, "--bins", bins, "--spots", 200]
        command("extract", "run", "--samples", root / "data/samples.csv", *store, *extraction)
        (root / "sweep.toml").write_text(SWEEP.format(epochs=epochs))
        (root / "fit.toml").write_text(
            f'[model]\nwidth = 128\n[optim]\nname = "adamw"\nepochs = {epochs}\nbatch_size = 64\nclip_norm = 1.0\n'
        )
        runs = ["--runs", root / "runs"]
        sweep_s = command("train", "sweep", root / "sweep.toml", "--trials", trials, *store, *runs)
        fit_s = command("train", "fit", "--recipe", root / "fit.toml", "--set", "baselines=false", *store, *runs)
    result = {
        "backbone": backbone,
        "trials": trials,
        "epochs": epochs,
        "bins a slide": bins,
        "sweep ÷ fine-tuned fold": round(sweep_s / fit_s, 3),
        "limit": 1.0,
    }
    print(json.dumps(result, indent=2, ensure_ascii=False))
    if out is not None:
        out.write_text(json.dumps(result, indent=2, ensure_ascii=False) + "\n")


def command(module: str, *arguments: object) -> float:
    """Run one of the project's commands; returns its seconds."""
    started = time.perf_counter()
    subprocess.run([sys.executable, "-m", module, *map(str, arguments)], check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - started


if __name__ == "__main__":
    typer.run(main)

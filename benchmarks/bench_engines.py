"""What engines are worth and cost: one against two processes, and what a task costs by itself; `results/engines.json`.

In: synthetic slides, a small backbone with drawn weights. Out: rows of what and ratio:

    speed-up   wall time of a command with --jobs 1 ÷ --jobs 2, or of one training by one process ÷ by two that torchrun
               starts, and the share of its work that is then serial, by Amdahl's law: (2 ÷ speed-up − 1)
    overhead   milliseconds of a task that does nothing, of a thousand; beside slides and cells of minutes

Each process has one thread. Nothing else should run: two processes need two idle cores.

    PYTHONPATH=. python benchmarks/bench_engines.py
"""

import argparse
import json
import operator
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from magnet_core.engine.local import LocalEngine
from magnet_core.engine.ray_cluster import RayEngine
from magnet_core.engine.tasks import Engine, Task

RESULTS = Path(__file__).parent / "results" / "engines.json"
BACKBONE = "timm:test_mambaout"
TRAINED = "timm:resnet18"  # an encoder that takes most of a step
TINY = 1000  # tasks that do nothing
SYSTEMS = "magnet,feature_ridge,colour_ridge"

Row = dict[str, object]


def main() -> None:
    """Measure, print and write the rows."""
    parser = argparse.ArgumentParser(description="What engines are worth and cost.")
    parser.add_argument("--out", type=Path, default=RESULTS)
    out = parser.parse_args().out
    rows: list[Row] = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        command("extract", "synth", folder / "data", "--slides", 4, "--seed", 1, "--size-mm", 0.8)
        extract = ["run", "--samples", folder / "data" / "samples.csv", "--backbone", BACKBONE, "--weights", "random"]
        extract += ["--targets", 8, "--bins", 3000, "--spots", 400]
        seconds = [command("extract", *extract, "--store", folder / f"store{n}", "--jobs", n) for n in (1, 2)]
        rows += speed_up("extract run, four slides", *seconds)
        study = ["study", "baselines", "--targets", 8, "--systems", SYSTEMS, "--store", folder / "store1"]
        study += ["--backbone", BACKBONE, "--recipe", "recipes/quick.toml", "--set", "optim.epochs=4"]
        seconds = [command("train", *study, "--runs", folder / f"runs{n}", "--jobs", n) for n in (1, 2)]
        rows += speed_up("train study, four folds of three systems", *seconds)
        rows += speed_up(f"train fit, {TRAINED} fine-tuned for an epoch", *training(extract, folder), by="torchrun")
        for title, engine in {"--jobs 2": LocalEngine(2), "--engine ray": RayEngine()}.items():
            rows.append(overhead(title, engine))
    out.write_text(json.dumps(rows, indent=2, ensure_ascii=False) + "\n")
    print(f"written: {out}")


def training(extract: Sequence[object], folder: Path) -> list[float]:
    """Seconds of one training by one process and by two."""
    store = folder / "store-trained"
    command("extract", *extract, "--backbone", TRAINED, "--store", store, "--jobs", 2)
    fit = [
        "train",
        "fit",
        "--fold",
        0,
        "--store",
        store,
        "--backbone",
        TRAINED,
        "--bins",
        "finetuned",
        "--device",
        "cpu",
    ]
    fit += ["--set", "optim.epochs=1", "--set", "baselines=false", "--set", "validation.few=none"]
    by_two = ["torch.distributed.run", "--standalone", "--nproc-per-node", 2, "-m"]
    return [command(*fit, "--runs", folder / "by-one"), command(*by_two, *fit, "--runs", folder / "by-two")]


def command(package: str, *arguments: object) -> float:
    """Run a command of the project with one thread, and return its seconds."""
    start = time.perf_counter()
    called = [sys.executable, "-m", package, *map(str, arguments)]
    subprocess.run(called, check=True, env={**os.environ, "OMP_NUM_THREADS": "1"}, stdout=subprocess.DEVNULL)
    return time.perf_counter() - start


def speed_up(what: str, one: float, two: float, *, by: str = "--jobs") -> list[Row]:
    """Rows of a command's seconds with one process and with two."""
    ratio = one / two
    rows: list[Row] = [
        {"what": f"{what}: {by} 1 ÷ {by} 2", "ratio": round(ratio, 3)},
        {"what": f"{what}: serial share", "ratio": round(2 / ratio - 1, 3)},
    ]
    for row in rows:
        print(f"{row['what']}: {row['ratio']}", flush=True)
    return rows


def overhead(title: str, engine: Engine) -> Row:
    """Milliseconds of a task that does nothing, but for those of the first, which starts the processes."""
    tasks = [Task(f"task {number}", operator.add, (number, 1)) for number in range(TINY)]
    results, began = {}, 0.0
    for task, result in engine.run(tasks, lost=lambda task, why: -1):
        began = began or time.perf_counter()
        results[task.arguments[0]] = result
    milliseconds = 1000 * (time.perf_counter() - began) / (TINY - 1)
    if results != {number: number + 1 for number in range(TINY)}:
        raise SystemExit(f"{title}: a task has another result")
    print(f"{title}, {TINY:,} tasks that do nothing: {milliseconds:.2f} ms each", flush=True)
    return {"what": f"{title}: milliseconds of a task that does nothing, of {TINY:,}", "ratio": round(milliseconds, 2)}


if __name__ == "__main__":
    main()

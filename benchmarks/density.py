"""What it costs to train at one density of the graph and to predict at another.

In: a synthetic data set extracted three times, with `--sampling windows`, `uniform` (as many bins) and `all`. The model
is fitted on each of the first two, with frozen bins, and predicts every bin in tissue of its held-out slides, where
neighbours touch. Out: PCC per gene of both, by fold, and what it was on the bins of their own sampling.

    python benchmarks/density.py WINDOWS UNIFORM ALL --runs RUNS --out results.json
"""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import typer

from cache.store import Store
from magnet_core.levels import find_target
from magnet_core.metrics import combine, evaluate
from train.data.labels import fine_labels
from train.data.slide import open_slide_data
from train.learning.trained_run import load_run
from train.model.whole_slide import predict_slide
from train.pipeline import fit
from train.settings.fit import load_config


def main(
    windows: Path,
    uniform: Path,
    everything: Path,
    runs: Path = Path("runs"),
    recipe: Path = Path("recipes/quick.toml"),
    backbone: str = "timm:test_mambaout",
    folds: int = 4,
    out: Path | None = None,
) -> None:
    """Fit, predict every bin, print."""
    rows = []
    for sampling, store in (("windows", windows), ("uniform", uniform)):
        own, whole = [], []
        for fold in range(folds):
            name = f"{sampling}-fold{fold}"
            common = ["encoder.mode=frozen", "baselines=false", f"data.backbone={backbone}", f"runs={runs}"]
            split = [f"split.file={runs / 'folds.json'}", f"split.folds={folds}", f"fold={fold}", f"name={name}"]
            result = fit(load_config(recipe, [*common, *split, f"data.store={store}"]))
            own.append(result.systems["magnet"]["pcc_gene"])
            whole.append(on_every_bin(result.cell().folder, everything, result.cell().cell.fold.test))
        row = {"trained on": sampling, "its own bins": mean(own), "every bin": mean(whole), "every bin, by fold": whole}
        rows.append(row)
        print(row, flush=True)
    if out is not None:
        out.write_text(json.dumps(rows, indent=2) + "\n")


def on_every_bin(run: Path, everything: Path, slide_ids: Sequence[str]) -> float:
    """PCC per gene over all bins in tissue, mean over the slides."""
    trained = load_run(run)
    config = trained.config.data
    metrics = []
    for slide_id in slide_ids:
        slide = open_slide_data(Store(everything), slide_id, find_target(config.target), config)
        truth = fine_labels(slide, slide.labels(trained.panel, config.normalise))
        metrics.append(evaluate(predict_slide(trained.predictor, slide), truth))
    return round(combine(metrics).pcc_gene, 4)


def mean(values: list[float]) -> float:
    """Mean, as it is shown."""
    return round(float(np.mean(values)), 4)


if __name__ == "__main__":
    typer.run(main)

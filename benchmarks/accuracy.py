"""What each part of the model is worth on synthetic slides, by what drives a gene, beside an oracle.

In: the folder that `extract synth` wrote, and a store extracted from it. Every variant is fitted on every fold, with
frozen bins unless `--mode full` says otherwise; what is finished already is not fitted again, not even where `train
study` has fitted it. Out: the PCC per gene over the bins of a slide, averaged over genes and test slides, by class of
gene and as a share of the oracle's (the mean label given the true rates); and what the full model gains over each
variant, with a 95% interval by bootstrap over slides. With `--seeds 3` a variant's figure is the mean over trainings of
three seeds, and the mean of their predictions is a row of its own.

    python benchmarks/accuracy.py DATA STORE --runs RUNS --recipe recipes/quick.toml --out results.json
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import h5py
import numpy as np
import polars as pl
import typer

from cache.store import Store
from extract.synthetic.counts import negative_binomial
from extract.synthetic.truth import Truth, read_truth
from magnet_core.engine.local import LocalEngine
from magnet_core.expression import columns_of
from magnet_core.levels import find_target
from magnet_core.metrics import evaluate
from magnet_core.records import Genes
from train.data.fold_choice import choose_folds
from train.data.labels import fine_labels
from train.data.slide import open_slide_data
from train.pipeline import run_cells
from train.studies.cell import CellResult, members_of
from train.studies.plans import Planner
from train.studies.settings import load_study_config
from train.systems.table import MAGNET, title_of

# N bins of a slide, P panel genes

FULL = "full"
PLAIN = ("colour_ridge", "feature_ridge")
VARIANTS: dict[str, list[str]] = {
    FULL: [],
    "no own squares": ["data.own=false"],
    "paired contexts": ["data.contexts=paired"],
    "neither of both": ["data.own=false", "data.contexts=paired"],
    "no gat": ["model.use_gat=false"],
    "no multires": ["model.use_multires=false"],
    "neither gat nor multires": ["model.use_gat=false", "model.use_multires=false"],
    "no consistency": ["loss.consistency=false"],
    "two rounds": ["model.rounds=2"],
    "random batches": ["sampler=random"],
    "halo in training": ["halo=1"],
}
ORACLE = "oracle"
DRAWS = 128  # of counts, for the oracle's mean label: what noise is left in it lowers its correlation
RESAMPLES = 2000


def main(
    data: Path,
    store: Path,
    runs: Path = Path("runs"),
    recipe: Path = Path("recipes/quick.toml"),
    backbone: str = "timm:test_mambaout",
    variants: str = ",".join(VARIANTS),
    seeds: int = 1,
    mode: Annotated[str, typer.Option(help="of the encoder: frozen, full, last or lora")] = "frozen",
    set_: Annotated[list[str] | None, typer.Option("--set")] = None,
    jobs: int = 1,
    out: Path | None = None,
) -> None:
    """Fit, compare, print."""
    common = [f"encoder.mode={mode}", f"data.store={store}", f"data.backbone={backbone}", f"runs={runs}"]
    common += [f"split.file={runs / 'folds.json'}", f"seeds={seeds}", *(set_ or ())]
    configs = {name: load_study_config(recipe, [*common, *VARIANTS[name]]) for name in variants.split(",")}
    folds = choose_folds(configs[FULL].fit, None)
    rows = {name: Planner(config, folds).cells(MAGNET, config.fit) for name, config in configs.items()}
    full = Planner(configs[FULL], folds)
    rows |= {title_of(plain): full.cells(plain, configs[FULL].fit) for plain in PLAIN}
    alone = {name: members_of(cells) or cells for name, cells in rows.items()}
    wanted = [cell for cells in (*alone.values(), *rows.values()) for cell in cells]
    results = run_cells(wanted, runs, engine=LocalEngine(jobs), raises=True).cells
    tables = [scored(name, results[cell]) for name, cells in alone.items() for cell in cells]
    means = {f"{name}, mean of {seeds} predictions": cells for name, cells in rows.items() if cells[0].members}
    tables += [scored(name, results[cell]) for name, cells in means.items() for cell in cells]
    tables += [oracle(data, store, results[cell]) for cell in rows[FULL]]
    scores = pl.concat(table.select("system", "slide_id", "gene_id", "pcc") for table in tables)
    table = report(scores.join(gene_classes(data), on="gene_id"))
    if out is not None:
        out.write_text(json.dumps(table, indent=2, ensure_ascii=False) + "\n")


def scored(name: str, result: CellResult) -> pl.DataFrame:
    """Metrics of a cell's genes, under the name of a row."""
    return result.genes.with_columns(system=pl.lit(name))


def oracle(data: Path, store: Path, cell: CellResult) -> pl.DataFrame:
    """PCC of each gene for who knows the true rates, on the test slides of a cell."""
    config, panel = cell.cell.config.data, cell.panel
    tables = []
    for slide_id in cell.cell.fold.test:
        slide = open_slide_data(Store(store), slide_id, find_target(config.target), config)
        truth, dispersion = truth_of(data, slide_id)
        order = {barcode: row for row, barcode in enumerate(truth.barcodes.tolist())}
        rows = [order[barcode] for barcode in slide.fine.barcodes().tolist()]
        rates = truth.rates[rows][:, columns_of(Genes(truth.gene_ids, truth.gene_ids), panel.ids)]
        expected = mean_label(rates, dispersion, scale=config.normalise.scale)
        known = fine_labels(slide, slide.labels(panel, config.normalise))
        pcc = evaluate(expected, known).gene_pcc
        tables.append(pl.DataFrame({"system": ORACLE, "slide_id": slide_id, "gene_id": panel.ids, "pcc": pcc}))
    return pl.concat(tables)


def mean_label(rates: np.ndarray, dispersion: float, *, scale: float) -> np.ndarray:
    """Mean normalised log expression (N, P) of counts drawn at the rates (N, P)."""
    rng = np.random.default_rng(0)
    total = np.zeros(rates.shape)
    for _ in range(DRAWS):
        counts = negative_binomial(rates, dispersion, rng).toarray()
        total += np.log1p(counts * (scale / np.maximum(counts.sum(axis=1, keepdims=True), 1)))
    return total / DRAWS


def truth_of(data: Path, slide_id: str) -> tuple[Truth, float]:
    """The truth of a slide, and the dispersion its counts were drawn with."""
    path = data / slide_id / "truth" / "truth.h5"
    with h5py.File(path, "r") as file:
        dispersion = json.loads(file.attrs["config"])["dispersion"]
    return read_truth(path), dispersion


def gene_classes(data: Path) -> pl.DataFrame:
    """Class of each gene; it is the same on all slides."""
    truth = read_truth(next(data.glob("*/truth/truth.h5")))
    return pl.DataFrame({"gene_id": truth.gene_ids, "class": truth.gene_class})


def report(scores: pl.DataFrame) -> list[dict[str, object]]:
    """Print, and return, a row for each system."""
    per_slide = {
        name: {system[0]: table.sort("slide_id")["pcc"].to_numpy() for system, table in by_class.group_by("system")}
        for name, by_class in {
            "all": scores.group_by("system", "slide_id").agg(pl.col("pcc").fill_nan(None).mean()),
            **{
                each: scores.filter(pl.col("class") == each)
                .group_by("system", "slide_id")
                .agg(pl.col("pcc").fill_nan(None).mean())
                for each in sorted(scores["class"].unique())
            },
        }.items()
    }
    print(f"{'system':<20}" + "".join(f"{name:>22}" for name in per_slide) + f"{'full - system (95%)':>30}")
    rows: list[dict[str, object]] = []
    for system in sorted(per_slide["all"], key=lambda name: -per_slide["all"][name].mean()):
        row: dict[str, object] = {"system": system}
        for name, table in per_slide.items():
            row[name] = round(float(table[system].mean()), 4)
            row[f"{name} ÷ oracle"] = round(float(table[system].mean() / table[ORACLE].mean()), 3)
        row["full - system"] = gain(per_slide["all"], system)
        rows.append(row)
        cells = "".join(f"{row[name]:>13} ({row[f'{name} ÷ oracle']:.3f})" for name in per_slide)
        print(f"{system:<20}{cells}{row['full - system']!s:>30}", flush=True)
    return rows


def gain(per_slide: Mapping[str, np.ndarray], system: str) -> list[float]:
    """Mean difference of the full model to a system over test slides, and its 95% interval."""
    difference = per_slide[FULL] - per_slide[system]
    rng = np.random.default_rng(0)
    means = difference[rng.integers(len(difference), size=(RESAMPLES, len(difference)))].mean(axis=1)
    return [round(float(value), 4) for value in (difference.mean(), *np.quantile(means, [0.025, 0.975]))]


if __name__ == "__main__":
    typer.run(main)

"""Whether the squares of spots and regions show in predictions, in numbers and in a picture.

In: a data set with known truth (of `extract synth`, or of `semisynthetic.py`), and a store with every bin of it
(`extract run --sampling all`); training may have a store of its own, of sampled bins (STORE; `--everything` names the
other). MagNet is fitted on one fold, with frozen bins unless `--set encoder.mode=full` says otherwise, and predicts
every bin in tissue of the held-out slides; with `--before SETTING=VALUE` once more, with those settings in the place of
the others. What is fitted already is not fitted again.

Out: rows of what, ratio, goal, holds. For each context, seams are the mean |jump| of a gene between touching bins
across its borders ÷ that inside (`magnet_core.seams`; the mean of the slides), averaged over all genes and over the
genes of the region: those of the class, where the truth has one of this name, and else the fifth of the panel whose
expected label is best explained by its mean over the 128 µm around a bin. The truth's own row should be about 1. The
last rows are the PCC per gene with the measured labels, as a share of that of the true expected labels: a map that is
noise, or flat, has no seams either. The picture has the gene of the region that varies most.

    python benchmarks/seams.py DATA STORE --before SETTING=VALUE --out seams.json --picture seams.png
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from accuracy import truth_of
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from scipy import ndimage

from cache.store import Store
from extract.synthetic.truth import Truth
from magnet_core.errors import MagnetError
from magnet_core.expression import columns_of
from magnet_core.files import replacing
from magnet_core.levels import REGION, find_target
from magnet_core.metrics import evaluate
from magnet_core.records import Genes
from magnet_core.seams import seam_ratios, touching_pairs
from magnet_core.units import REGION_PATCH_UM
from train.data.labels import fine_labels
from train.data.slide import Slide, open_slide_data
from train.learning.trained_run import TrainedRun, load_run
from train.model.whole_slide import predict_slide
from train.pipeline import fit
from train.settings.fit import load_config

# N bins of a slide, P panel genes; H, W rows and columns of a map

GOAL = 1.05
REGION_SHARE = 0.2  # of the panel, where the truth names no class
TAIL = 1e-7  # of a gene's counts that its expected label leaves out
SCALE_BAR_UM = 250
TRUTH, BEFORE, AFTER, ALONE = "truth", "prediction before", "prediction after", "prediction"


@dataclass(frozen=True)
class Maps:
    """One held-out slide and its maps.

    values       by what they are of, (N, P) each, the truth's expected labels first
    measured     labels (N, P)
    rows_cols    (N, 2) of the bins on their lattice
    is_of_region (P,) bool
    """

    slide: Slide
    panel: Genes
    values: dict[str, np.ndarray]
    measured: np.ndarray
    rows_cols: np.ndarray
    is_of_region: np.ndarray


def main(
    data: Path,
    store: Path,
    everything: Path | None = None,
    runs: Path = Path("runs"),
    recipe: Path = Path("recipes/quick.toml"),
    backbone: str = "timm:test_mambaout",
    folds: int = 4,
    fold: int = 0,
    set_: Annotated[list[str] | None, typer.Option("--set")] = None,
    before: Annotated[list[str] | None, typer.Option("--before")] = None,
    out: Path | None = None,
    picture: Path | None = None,
) -> None:
    """Fit, predict every bin, measure, draw."""
    common = ["encoder.mode=frozen", "baselines=false", f"data.store={store}", f"data.backbone={backbone}"]
    common += [f"runs={runs}", "overwrite=true", f"split.file={runs / 'folds.json'}", f"split.folds={folds}"]
    common += [f"fold={fold}", *(set_ or ())]
    variants = {BEFORE: [*common, *before], AFTER: common} if before else {ALONE: common}
    slides: dict[str, Maps] = {}
    for variant, assignments in variants.items():
        result = fit(load_config(recipe, [*assignments, f"name=seams-{variant.split()[-1]}-fold{fold}"])).cell()
        trained = load_run(result.folder)
        for slide_id in result.cell.fold.test:
            if slide_id not in slides:
                slides[slide_id] = open_maps(data, everything or store, slide_id, trained)
            check_panel(slides[slide_id].panel, trained.panel)
            slide = open_slide_as(trained, everything or store, slide_id)
            slides[slide_id].values[variant] = predict_slide(trained.predictor, slide)
    rows = report(list(slides.values()))
    if out is not None:
        out.write_text(json.dumps(rows, indent=2, ensure_ascii=False) + "\n")
    if picture is not None:
        draw(next(iter(slides.values())), picture)


def open_slide_as(trained: TrainedRun, store: Path, slide_id: str) -> Slide:
    """Open a slide of a store as a run reads it."""
    return open_slide_data(Store(store), slide_id, find_target(trained.config.data.target), trained.config.data)


def open_maps(data: Path, store: Path, slide_id: str, trained: TrainedRun) -> Maps:
    """Open every bin of a held-out slide, with the truth over the panel."""
    config, panel = trained.config.data, trained.panel
    slide = open_slide_as(trained, store, slide_id)
    truth, dispersion = truth_of(data, slide_id)
    barcodes = slide.fine.barcodes()
    order = {barcode: row for row, barcode in enumerate(truth.barcodes.tolist())}
    columns = columns_of(Genes(truth.gene_ids, truth.gene_ids), panel.ids)
    rates = truth.rates[[order[barcode] for barcode in barcodes.tolist()]][:, columns]
    expected = expected_labels(rates, dispersion, scale=config.normalise.scale)
    rows_cols = np.array([barcode.removesuffix("-1").split("_")[-2:] for barcode in barcodes.tolist()]).astype(int)
    rows_cols -= rows_cols.min(axis=0)
    measured = fine_labels(slide, slide.labels(panel, config.normalise))
    is_of_region = genes_of_region(truth, columns, expected, rows_cols, pitch_um=slide.target.um)
    return Maps(slide, panel, {TRUTH: expected}, measured, rows_cols, is_of_region)


def check_panel(expected: Genes, found: Genes) -> None:
    """Refuse models of other genes, whose maps cannot be compared."""
    if not np.array_equal(expected.ids, found.ids):
        raise MagnetError(
            "--before", expected="the same genes in both", found="two panels", remedy="change no setting of the panel"
        )


def expected_labels(rates: np.ndarray, dispersion: float, *, scale: float) -> np.ndarray:
    """Mean normalised log expression (N, P) of negative binomial counts at rates (N, P), libraries being at their mean.

    It adds up over the counts that a gene may have: unlike a mean over draws, it has no noise that adds to every jump.
    """
    step = scale / rates.sum(axis=1)
    expected = np.empty(rates.shape, np.float32)
    for gene, rate in enumerate(rates.astype(np.float64).T):
        grows = rate / (rate + 1 / dispersion)
        probability = (1 - grows) ** (1 / dispersion)  # of no count
        total, left, count = np.zeros(len(rate)), 1 - probability, 0
        while left.max() > TAIL:
            probability = probability * grows * (count + 1 / dispersion) / (count + 1)
            count += 1
            total += probability * np.log1p(count * step)
            left -= probability
        expected[:, gene] = total
    return expected


def genes_of_region(
    truth: Truth, columns: np.ndarray, expected: np.ndarray, rows_cols: np.ndarray, *, pitch_um: float
) -> np.ndarray:
    """Tell of each panel gene (P,) whether it is one of the region, see above."""
    if REGION in truth.gene_class:
        return truth.gene_class[columns] == REGION
    explained = np.array([share_of_region(gene, rows_cols, pitch_um) for gene in expected.T])
    return explained >= np.quantile(explained, 1 - REGION_SHARE)


def share_of_region(values: np.ndarray, rows_cols: np.ndarray, pitch_um: float) -> float:
    """Share of the variance of values (N,) that their mean over the 128 µm around each bin, in tissue, explains."""
    side = round(REGION_PATCH_UM / pitch_um) | 1
    total, area = (
        ndimage.uniform_filter(np.nan_to_num(raster), side, mode="constant")
        for raster in (on_raster(values - values.mean(), rows_cols), on_raster(np.ones(len(values)), rows_cols))
    )
    around = (total / np.where(area > 0, area, 1))[tuple(rows_cols.T)]
    return float(np.corrcoef(values, around)[0, 1] ** 2)


def on_raster(values: np.ndarray, rows_cols: np.ndarray) -> np.ndarray:
    """Map (H, W) of values (N,), NaN where there is no bin."""
    raster = np.full(rows_cols.max(axis=0) + 1, np.nan)
    raster[tuple(rows_cols.T)] = values
    return raster


def report(slides: Sequence[Maps]) -> list[dict[str, object]]:
    """Print, and return, the rows."""
    rows: list[dict[str, object]] = []
    ratios = [slide_ratios(maps) for maps in slides]
    for variant, levels in ratios[0].items():
        for level in levels:
            seams = [of_slide[variant][level] for of_slide in ratios]
            of_region = [gene_ratios[maps.is_of_region] for gene_ratios, maps in zip(seams, slides, strict=True)]
            add(rows, f"{variant}, seams of {level}s, all genes", mean(seams), GOAL)
            add(rows, f"{variant}, seams of {level}s, genes of the region", mean(of_region), GOAL)
    accuracy = {variant: mean([evaluate(maps.values[variant], maps.measured).gene_pcc for maps in slides])
                for variant in ratios[0]}  # fmt: skip
    for variant in ratios[0]:
        if variant != TRUTH:
            add(rows, f"{variant}, PCC per gene ÷ the truth's", accuracy[variant] / accuracy[TRUTH], None)
    return rows


def slide_ratios(maps: Maps) -> dict[str, dict[str, np.ndarray]]:
    """Seam ratios (P,) of a slide by what the map is of, and by context level."""
    fine = maps.slide.fine
    pairs = touching_pairs(fine.centres_um, fine.edges, pitch_um=maps.slide.target.um)
    return {variant: seam_ratios(values, pairs, maps.slide.pairs) for variant, values in maps.values.items()}


def add(rows: list[dict[str, object]], what: str, ratio: float, goal: float | None) -> None:
    """Add a row and print it; a figure without a goal holds nothing."""
    rows.append(
        {"what": what, "ratio": round(ratio, 3), "goal": goal, "holds": None if goal is None else ratio <= goal}
    )
    print(f"{what}: {ratio:.3f}" + ("" if goal is None else f" (goal {goal}, holds: {ratio <= goal})"), flush=True)


def mean(of_slides: Sequence[np.ndarray]) -> float:
    """Mean over genes, then over slides."""
    return float(np.mean([np.nanmean(of_genes) for of_genes in of_slides]))


def draw(maps: Maps, path: Path) -> None:
    """Draw the truth and the predictions of one gene side by side, on the truth's colour scale."""
    gene = int(np.where(maps.is_of_region, maps.values[TRUTH].std(axis=0), -1).argmax())
    ratios = slide_ratios(maps)
    low, high = np.percentile(maps.values[TRUTH][:, gene], [1, 99])
    figure = Figure(figsize=(4.6 * len(maps.values) + 0.8, 5.8), layout="constrained")
    for index, (variant, values) in enumerate(maps.values.items()):
        axes = figure.add_subplot(1, len(maps.values), index + 1)
        drawn = axes.imshow(
            on_raster(values[:, gene], maps.rows_cols), vmin=low, vmax=high, cmap="viridis", interpolation="nearest"
        )
        axes.set_title(caption(variant, ratios[variant], gene), fontsize=11)
        axes.set_xticks([])
        axes.set_yticks([])
        axes.spines[:].set_visible(False)
        height = maps.rows_cols[:, 0].max() + 1
        axes.set_ylim(1.12 * height, -0.5)  # room for the scale bar below each map, so that all are as large
        if index == 0:
            draw_scale_bar(axes, height=height, pitch_um=maps.slide.target.um)
    figure.colorbar(drawn, ax=figure.axes, shrink=0.75, label="normalised log expression")
    figure.suptitle(
        f"{maps.panel.names[gene]}, a gene of the region, on every bin of slide {maps.slide.slide_id}", fontsize=13
    )
    FigureCanvasAgg(figure)
    with replacing(path) as partial:
        figure.savefig(partial, dpi=130, format="png")


def caption(variant: str, levels: dict[str, np.ndarray], gene: int) -> str:
    """Say what a map is of, and how much its tiles show in this gene."""
    what = "truth (expected label)" if variant == TRUTH else variant
    return f"{what}\nseams: " + ", ".join(f"{level} {ratios[gene]:.2f}" for level, ratios in levels.items())


def draw_scale_bar(axes: Axes, *, height: int, pitch_um: float) -> None:
    """Draw a bar below the map, at its left."""
    length, below = SCALE_BAR_UM / pitch_um, 1.03 * height
    axes.plot([0, length], [below, below], color="black", linewidth=3, solid_capstyle="butt")
    axes.text(length / 2, 1.05 * height, f"{SCALE_BAR_UM} µm", ha="center", va="top", fontsize=10)


if __name__ == "__main__":
    typer.run(main)

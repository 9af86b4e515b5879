"""From finished cells to the numbers of a table: means over folds, their spread, intervals, shares of the ceiling.

In: a `Plan` and its results. Out: a `Line` for each row. A fold's figure is the mean over its test slides; a row's is
the mean over folds, as the paper has it, and its 95 % interval the bootstrap of `magnet_core.resampling`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl

from magnet_core.resampling import METRICS, BlockSums, interval, metrics_of, pool, resample
from train.evaluation.scores import DISPERSION, LOW_CEILING
from train.settings.protocols import Pooling
from train.studies.cell import Cell, CellResult, Results
from train.studies.plans import Plan, Row
from train.studies.published import Figures
from train.systems.table import CEILING_TITLE

# R resamples


@dataclass(frozen=True)
class Statistic:
    """Mean over folds, standard deviation over folds (NaN for a single fold), and the 95 % interval of the mean."""

    mean: float
    sd: float
    low: float = float("nan")
    high: float = float("nan")


@dataclass(frozen=True)
class Line:
    """A row of a table in numbers.

    metrics    by name: mse, mae, pcc_bin, pcc_gene; empty where no fold is finished
    of_ceiling PCC per gene as a share of the noise ceiling, an upper bound, on the same slides
    behind     what our row gains over this row in PCC per gene; None for our row itself
    """

    group: str
    title: str
    is_ours: bool
    folds: int
    slides: int
    metrics: Mapping[str, Statistic]
    of_ceiling: float
    behind: Statistic | None
    published: Figures | None


def summarise(plan: Plan, results: Results) -> list[Line]:
    """Return a line for each row of a plan, and one for the noise ceiling of each group."""
    lines = []
    for group in dict.fromkeys(row.group for row in plan.rows):
        rows = [row for row in plan.rows if row.group == group]
        ceilings = finished(plan.ceilings[group], results)
        ours = next((finished(row.cells, results) for row in rows if row.is_ours), [])
        lines += [
            summarise_row(row, finished(row.cells, results), ours, ceilings, pooling=plan.pooling) for row in rows
        ]
        lines.append(ceiling_line(group, ceilings))
    return lines


def finished(cells: Sequence[Cell], results: Results) -> list[CellResult]:
    """Return the results of those cells that have one."""
    return [results.cells[cell] for cell in cells if cell in results.cells]


def summarise_row(
    row: Row,
    cells: Sequence[CellResult],
    ours: Sequence[CellResult],
    ceilings: Sequence[CellResult],
    *,
    pooling: Pooling,
) -> Line:
    """Summarise one row, given our own row and the ceilings."""
    if not cells:
        return Line(row.group, row.title, row.is_ours, 0, 0, {}, float("nan"), None, row.published)
    draws = resampled(cells, pooling)
    metrics = {
        name: Statistic(*_mean_sd([fold_means(cell, pooling)[name] for cell in cells]), *interval(draws[name]))
        for name in METRICS
    }
    behind = None if row.is_ours else gain(ours, cells, pooling)
    of_ceiling = share_of_ceiling(cells, ceilings, pooling)
    slides = sum(len(cell.blocks) for cell in cells)
    return Line(row.group, row.title, row.is_ours, len(cells), slides, metrics, of_ceiling, behind, row.published)


def ceiling_line(group: str, ceilings: Sequence[CellResult]) -> Line:
    """Return the noise ceiling as a line, which has only a correlation per gene."""
    means = [_mean_pcc(cell.genes) for cell in ceilings]
    slides = sum(cell.genes["slide_id"].n_unique() for cell in ceilings)
    metrics = {"pcc_gene": Statistic(*_mean_sd(means))} if means else {}
    return Line(group, CEILING_TITLE, False, len(means), slides, metrics, 1.0, None, None)


def fold_means(cell: CellResult, pooling: Pooling) -> dict[str, float]:
    """Return the metrics of a cell over its test slides."""
    if pooling == "pooled":
        return slide_metrics(pool(list(cell.blocks.values())))
    weights = slide_weights(cell, pooling)
    per_slide = {slide_id: slide_metrics(sums) for slide_id, sums in cell.blocks.items()}
    return {
        name: _weighted_mean([(metrics[name], weights[slide_id]) for slide_id, metrics in per_slide.items()])
        for name in METRICS
    }


def slide_weights(cell: CellResult, pooling: Pooling) -> dict[str, float]:
    """Return the weight of each test slide of a fold, equal or by measured entries; the weights sum to 1."""
    sizes = {name: sums.errors[0].sum() if pooling == "rows" else 1.0 for name, sums in cell.blocks.items()}
    return {name: float(size / sum(sizes.values())) for name, size in sizes.items()}


def slide_metrics(sums: BlockSums) -> dict[str, float]:
    """Return the metrics of one slide, with every block counted once."""
    return {name: float(values[0]) for name, values in metrics_of(sums, np.ones((1, sums.errors.shape[1]))).items()}


def resampled(cells: Sequence[CellResult], pooling: Pooling) -> dict[str, np.ndarray]:
    """Return metrics (R,) of resamples of a row's test slides; a fold counts the same whatever its number of slides."""
    if pooling == "pooled":
        folds = {f"fold {cell.cell.fold.index}": pool(list(cell.blocks.values())) for cell in cells}
        return resample(folds, dict.fromkeys(folds, 1.0))
    patients = {slide_id: patient for cell in cells for slide_id, patient in cell.patients.items()}
    slides = {slide_id: sums for cell in cells for slide_id, sums in cell.blocks.items()}
    weights = {slide_id: weight for cell in cells for slide_id, weight in slide_weights(cell, pooling).items()}
    return resample(slides, weights, patients=patients)


def gain(ours: Sequence[CellResult], others: Sequence[CellResult], pooling: Pooling) -> Statistic | None:
    """Return what our system gains in PCC per gene over another on their common folds, paired slide by slide."""
    pairs = [(one, other) for one in ours for other in others if one.cell.fold == other.cell.fold]
    if not pairs:
        return None
    first, second = zip(*pairs, strict=True)
    differences = [_difference_of(one, other, pooling) for one, other in pairs]
    drawn = resampled(first, pooling)["pcc_gene"] - resampled(second, pooling)["pcc_gene"]
    return Statistic(*_mean_sd(differences), *interval(drawn))


def _difference_of(one: CellResult, other: CellResult, pooling: Pooling) -> float:
    return fold_means(one, pooling)["pcc_gene"] - fold_means(other, pooling)["pcc_gene"]


def share_of_ceiling(cells: Sequence[CellResult], ceilings: Sequence[CellResult], pooling: Pooling) -> float:
    """Return mean PCC per gene ÷ mean ceiling, over the folds that have both.

    A ceiling belongs to a single slide: a correlation over pooled rows, which includes differences of slides, has none.
    """
    pairs = [(one, top) for one in cells for top in ceilings if one.cell.fold == top.cell.fold]
    if not pairs or pooling == "pooled":
        return float("nan")
    weights = [slide_weights(one, pooling) for one, _ in pairs]
    reached, reachable = (
        float(np.mean([_mean_pcc(pair[side].genes, of_slide) for pair, of_slide in zip(pairs, weights, strict=True)]))
        for side in (0, 1)
    )
    return reached / reachable if reachable > 0 else float("nan")


def genes_of(plan: Plan, results: Results) -> pl.DataFrame:
    """Return the metrics of every row, fold, test slide and gene, with the gene's noise ceiling.

    The ceiling is an upper bound; `ceiling_low` is an estimate from below, by the `dispersion` that touching bins show.
    """
    tables = []
    of_ceiling = {"ceiling": "pcc", LOW_CEILING: LOW_CEILING, DISPERSION: DISPERSION}
    for row in plan.rows:
        ceilings = {cell.cell.fold.index: cell.genes for cell in finished(plan.ceilings[row.group], results)}
        for cell in finished(row.cells, results):
            table = _labelled(cell.genes.drop("system"), row, cell)
            ceiling = ceilings.get(cell.cell.fold.index)
            if ceiling is None:
                table = table.with_columns(pl.lit(None, dtype=pl.Float64).alias(name) for name in of_ceiling)
            else:
                keys = ["slide_id", "gene_id"]
                known = [
                    (pl.col(name) if name in ceiling.columns else pl.lit(None, dtype=pl.Float64)).alias(column)
                    for column, name in of_ceiling.items()
                ]
                table = table.join(ceiling.select(*keys, *known), on=keys, how="left")
            tables.append(table)
    return pl.concat(tables) if tables else pl.DataFrame()


def slides_of(plan: Plan, results: Results) -> pl.DataFrame:
    """Return the metrics of every row, fold and test slide."""
    tables = [
        _labelled(pl.DataFrame({"slide_id": [slide_id], **slide_metrics(sums)}), row, cell)
        for row in plan.rows
        for cell in finished(row.cells, results)
        for slide_id, sums in cell.blocks.items()
    ]
    return pl.concat(tables) if tables else pl.DataFrame()


def _labelled(table: pl.DataFrame, row: Row, cell: CellResult) -> pl.DataFrame:
    labels = {"group": row.group, "system": row.title, "fold": cell.cell.fold.index}
    return table.select(*(pl.lit(value).alias(name) for name, value in labels.items()), pl.all())


def _mean_pcc(genes: pl.DataFrame, weights: Mapping[str, float] | None = None) -> float:
    """Return the mean over slides, with their weights, of the mean over genes."""
    by_slide = genes.group_by("slide_id").agg(pl.col("pcc").fill_nan(None).mean()).fill_null(float("nan"))
    return _weighted_mean([(pcc, (weights or {}).get(slide_id, 1.0)) for slide_id, pcc in by_slide.iter_rows()])


def _mean_sd(values: Sequence[float]) -> tuple[float, float]:
    finite = [value for value in values if np.isfinite(value)]
    if not finite:
        return float("nan"), float("nan")
    return float(np.mean(finite)), float(np.std(finite, ddof=1)) if len(finite) > 1 else float("nan")


def _weighted_mean(values: Sequence[tuple[float, float]]) -> float:
    """Return the weighted mean of (value, weight) pairs without values that are NaN."""
    finite_pairs = [(value, weight) for value, weight in values if np.isfinite(value)]
    total = sum(weight for _, weight in finite_pairs)
    return sum(value * weight for value, weight in finite_pairs) / total if total else float("nan")

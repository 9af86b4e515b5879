"""The section of one `train fit`: a fold, MagNet beside the plain baselines.

In: summary.json, genes.parquet, run.json. Out: a `Section`. One fold has no spread, and no noise ceiling is kept.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import polars as pl

from magnet_core.resampling import METRICS
from train.evaluation.scores import COLUMNS
from train.evaluation.system_names import MAGNET, TITLES
from train.learning.run_folder import GENES, SUMMARY
from train.learning.trained_run import DESCRIPTION
from train.report.figures import Estimate, estimates
from train.report.folder import read_json, read_table, read_training
from train.report.genes import COLUMNS as GENE_COLUMNS
from train.report.genes import against_system, best_and_worst, by_gene, note_on
from train.report.parts import Block, Plots, Section, Table, unrepeated
from train.report.settings import facts, folds_table, settings, versions
from train.report.trainings import training_plots
from train.studies.numbers import NOTHING, number
from train.studies.render import LOWER_IS_BETTER

Scores = Mapping[str, Mapping[str, float | None]]


def fit_section(folder: Path) -> Section:
    """Read a fit's folder; an unfinished one is an error."""
    summary = read_json(folder / SUMMARY, ("systems", "slides", "fold"))
    run = read_json(folder / DESCRIPTION, ("config",))
    genes = read_table(folder / GENES, ("system", *GENE_COLUMNS))
    systems: Scores = summary["systems"]
    fold = summary["fold"]
    target = f"{run['config']['data']['target']} µm"
    blocks: list[Block] = [
        folds_table({str(fold["index"]): fold}),
        *settings(run["config"]),
        *score_blocks(systems),
        *gene_blocks(genes, systems),
        slides_table(summary["slides"]),
        *training_blocks(folder, fold["index"]),
        versions(run),
    ]
    tested = ", ".join(fold["test"])
    about = [("target", target), *facts(run["config"]), ("tested on", f"{tested} (fold {fold['index']})")]
    ours = systems[MAGNET]
    main = [folder.name, target, TITLES[MAGNET], tested, *(number(ours[name]) for name in METRICS), NOTHING, NOTHING]
    return Section(f"{folder.name}: fold {fold['index']}", str(folder), about, blocks, [main])


def score_blocks(systems: Scores) -> list[Block]:
    """Systems by metric, and PCC per gene as points."""
    rows, best = [], set()
    for index, (system, values) in enumerate(systems.items()):
        rows.append([TITLES.get(system, system), *(number(values[name]) for name in METRICS)])
        best |= {(index, 1 + place) for place, name in enumerate(METRICS) if values[name] == leading(systems, name)}
    ours = frozenset(index for index, system in enumerate(systems) if system == MAGNET)
    headings = ("system", *COLUMNS.values())
    table = Table("Systems", headings, rows, 1, "Mean over the test slides of one fold.", frozenset(best), ours)
    drawn = [
        Estimate(TITLES.get(system, system), value, is_ours=system == MAGNET)
        for system, values in systems.items()
        if (value := values["pcc_gene"]) is not None
    ]
    plots = Plots("PCC per gene by system", [estimates("test slides", drawn, x_title="PCC per gene")])
    return [table, plots] if drawn else [table]


def leading(systems: Scores, name: str) -> float | None:
    """The best value of a metric."""
    known = [value for values in systems.values() if (value := values[name]) is not None]
    return (min if name in LOWER_IS_BETTER else max)(known, default=None)


def gene_blocks(table: pl.DataFrame, systems: Scores) -> list[Block]:
    """MagNet's genes against those of the best of the others, and the best and worst of them."""
    ours = by_gene(table.filter(pl.col("system") == MAGNET))
    blocks: list[Block] = []
    others = {name: values["pcc_gene"] or 0.0 for name, values in systems.items() if name != MAGNET}
    if others:
        rival = max(others, key=lambda name: others[name])
        theirs = by_gene(table.filter(pl.col("system") == rival))
        titles = {"name": TITLES[MAGNET], "other_name": TITLES.get(rival, rival)}
        plot = against_system("PCC of each gene", ours, theirs, **titles)
        blocks += [Plots("Genes against the best of the baselines", [plot], note_on([plot]))] if plot else []
    return blocks + best_and_worst(TITLES[MAGNET], ours)


def slides_table(slides: Mapping[str, Scores]) -> Table:
    """Metrics by test slide."""
    rows = [
        [TITLES.get(system, system), slide_id, *(number(values[name]) for name in METRICS)]
        for system, by_slide in slides.items()
        for slide_id, values in by_slide.items()
    ]
    return Table("Test slides", ("system", "slide", *COLUMNS.values()), unrepeated(rows), 2)


def training_blocks(folder: Path, fold: Any) -> list[Block]:
    """Loss, and score on validation slides, by epoch."""
    training = read_training(folder)
    if training is None:
        return []
    held_out = ", ".join(training.validation_slides)
    note = f"A dot marks the epoch whose weights were kept. Validation slides: {held_out or 'none'}."
    return [Plots("Training", training_plots(TITLES[MAGNET], [(TITLES[MAGNET], f"fold {fold}", training)]), note)]

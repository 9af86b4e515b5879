"""A study on one page: compute the cells of a plan that are not there, then write its table in every form.

Out, in the study's folder:

    table.txt, .md, .tex, .csv   the table
    genes.parquet                metrics of every system, fold, test slide and gene, and the gene's noise ceiling
    slides.parquet               metrics of every system, fold and test slide
    pivotal.txt, .md, .csv       MSE, PCC and structural similarity of genes that were asked for
    figure.png, maps-<gene>.png  the table as a picture; a gene's maps, measured and predicted
    study.json                   settings, folds, versions, the folders of the cells, what failed
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tqdm import tqdm

from cache.store import Store, package_versions
from magnet_core.errors import MagnetError
from magnet_core.files import write_json, write_text
from magnet_core.settings import differing
from train.data.fold_sides import all_folds, find_fold
from train.data.folds import Fold
from train.evaluation.scores import write_genes
from train.settings.fit import check_name
from train.settings.protocols import PROTOCOLS
from train.settings.study import OUTPUT_NEUTRAL_OF_STUDY, StudyConfig
from train.studies.figures import draw_table
from train.studies.pivotal import pivotal_genes
from train.studies.plans import Plan
from train.studies.render import FORMS, csv_table, render
from train.studies.runner import Results, run_cells
from train.studies.summary import Line, genes_of, slides_of, summarise

DESCRIPTION = "study.json"


@dataclass(frozen=True)
class StudyResult:
    """Where a study lies, its table as text, and the faults of the cells that failed."""

    folder: Path
    text: str
    faults: tuple[str, ...]


def choose_folds(config: StudyConfig, chosen: Sequence[int] | None) -> list[Fold]:
    """Return all folds, or those that are asked for by number."""
    folds = all_folds(Store(config.fit.data.store), config.fit)
    return folds if chosen is None else [find_fold(folds, index, config.fit) for index in chosen]


def run_study(
    plan: Plan, config: StudyConfig, *, published: bool = False, genes: Sequence[str] = (), maps: bool = True
) -> StudyResult:
    """Compute what a plan lacks and write its tables; the same call goes on where it was stopped."""
    folder = check_folder(config.fit.runs, plan, config)
    results = run_cells(plan.cells, config.fit.runs)
    lines = summarise(plan, results)
    notes = legend(plan, config, lines, published=published)
    faults = tuple(dict.fromkeys(results.faults.values()))
    for form in FORMS:
        mark = "% " if form == "tex" else ""
        head = "\n".join(f"{mark}{note}" for note in [plan.title, *notes, *(f"failed: {fault}" for fault in faults)])
        write_text(folder / f"table.{form}", f"{head}\n\n{render(lines, form, published=published)}\n")
    write_text(folder / "table.csv", csv_table(lines).write_csv())
    for name, table in (("genes", genes_of(plan, results)), ("slides", slides_of(plan, results))):
        write_genes(folder / f"{name}.parquet", table)
    draw_table(lines, plan.title, notes[0], folder / "figure.png")
    write_json(folder / DESCRIPTION, describe(plan, config, results))
    pivotal = pivotal_genes(plan, results, genes, folder=folder, maps=maps) if genes else ""
    return StudyResult(folder, (folder / "table.txt").read_text() + pivotal, faults)


def check_folder(runs: Path, plan: Plan, config: StudyConfig) -> Path:
    """Return the study's folder; one of another command is refused, a table of other settings said to be replaced."""
    check_name(plan.name)
    folder = runs / plan.name
    if folder.is_dir() and any(folder.iterdir()) and not (folder / DESCRIPTION).exists():
        raise MagnetError(
            folder, expected="a new folder, or a study's", found="something else in it", remedy="give another --name"
        )
    if (folder / DESCRIPTION).exists():
        before = json.loads((folder / DESCRIPTION).read_text(encoding="utf-8"))["config"]
        if different := differing(before, config.plain(), neutral=OUTPUT_NEUTRAL_OF_STUDY):
            tqdm.write(
                f"{folder}: its table, of other {', '.join(different)}, will be replaced; its cells stay, and another "
                "--name would keep both"
            )
    return folder


def legend(plan: Plan, config: StudyConfig, lines: Sequence[Line], *, published: bool) -> list[str]:
    """Say what the numbers are, and of which data each column is."""
    fold_count, slides = max(line.folds for line in lines), max(line.slides for line in lines)
    data = config.fit.data
    backbones = list(dict.fromkeys(cell.config.data.backbone for cell in plan.cells))
    bins = "cached features, no encoder trained" if config.fit.encoder.mode == "frozen" else "encoders fine-tuned"
    notes = [
        f"data: {data.store} ({slides} test slides in {fold_count} folds), features of {', '.join(backbones)}, {bins}",
        f"protocol: {PROTOCOLS[config.protocol].says}; {data.panel} genes",
        "mean±sd over folds; 95 %: bootstrap over patients and over neighbourhoods of bins within their slides",
        "÷ ceiling: PCC per gene as a share of the noise ceiling; ours − system: what MagNet, or the row marked 'all "
        "blocks' or the first backbone, gains in PCC per gene, with its 95 %, paired",
    ]
    if len(backbones) > 1:
        notes.append(f"subgraphs of {config.fit.optim.batch_size} bins for every backbone")
    if published:
        notes.append(
            "columns VUMC and CRC: as published, on the authors' kidney slides and on the colorectal ones of Oliveira "
            "et al. (2024), not on the data above; their PCC is per bin"
        )
    incomplete = [f"{line.group} {line.title}" for line in lines if line.folds < fold_count]
    return notes + ([f"not on every fold: {', '.join(incomplete)}"] if incomplete else [])


def describe(plan: Plan, config: StudyConfig, results: Results) -> dict[str, object]:
    """Say what a study was made of."""
    rows = [
        {
            "group": row.group,
            "title": row.title,
            "ours": row.is_ours,
            "cells": [str(results.cells[cell].folder) for cell in row.cells if cell in results.cells],
        }
        for row in plan.rows
    ]
    folds = {cell.fold.index: {"train": cell.fold.train, "test": cell.fold.test} for cell in plan.cells}
    return {
        "title": plan.title,
        "rows": rows,
        "folds": {str(index): sides for index, sides in sorted(folds.items())},
        "faults": list(results.faults.values()),
        "config": config.plain(),
        "versions": package_versions(),
    }

"""The folder of a table: what `train fit`, `cv` and `study` leave, each file whole or absent.

table.txt, .md, .tex, .csv   the table
genes.parquet                metrics of every system, fold, test slide and gene, and the gene's noise ceiling: an upper
                             bound, and the estimate from below where bins touch
slides.parquet               metrics of every system, fold and test slide
pivotal.txt, .md, .csv       MSE, PCC and structural similarity of the requested genes
figure.png, maps-<gene>.png  the table as a picture; a gene's maps, measured and predicted
study.json                   settings, folds, versions, the folders of the cells, what failed, and checksums of itself
                             and of the files that `train report` reads
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import polars as pl

from cache.store import package_versions
from magnet_core.checksums import FILES, file_checksums
from magnet_core.console import notice
from magnet_core.errors import MagnetError
from magnet_core.files import remove_left, write_text
from magnet_core.sealed import write_sealed
from magnet_core.settings import differing, flat
from train.evaluation.scores import write_genes
from train.places import CELLS, FORMER_FIT, OF_A_TABLE, RUN, TABLE, WEIGHTS, read_back, read_record
from train.settings.fit import OUTPUT_NEUTRAL, FitConfig, as_recorded, check_name
from train.settings.protocols import PROTOCOLS
from train.studies.ceiling_note import BOUND, low_ceiling_note
from train.studies.cell import Results
from train.studies.figures import draw_table
from train.studies.numbers import counted
from train.studies.plans import Plan
from train.studies.render import FORMS, csv_table, render
from train.studies.settings import StudyConfig
from train.studies.summary import Line, genes_of, slides_of, summarise

WHERE = ("name", "runs")  # settings that say where a table lies
CHOOSES_FEATURES = "data.settings_digest"
OF_MAGNET = ("data.own", "data.contexts", "sampler", "halo", "ridge")
TABLES_OF_MAGNET = ("model.", "loss.")
OF_A_FORMER_FIT = (FORMER_FIT, RUN, WEIGHTS, "genes.parquet")


def check_folder(runs: Path, plan: Plan, config: StudyConfig, *, replaces: bool) -> Path:
    """Return the table's folder.

    A folder that holds something else is refused, and so is a table of other settings unless `replaces` is true. The
    cells of a replaced table stay.
    """
    check_name(plan.name)
    folder = runs / plan.name
    remove_left(folder)
    if (folder / FORMER_FIT).exists():
        forget_former_fit(folder, replaces=replaces)
    elif not (folder / TABLE).exists():
        if folder.is_dir() and any(not _is_of_a_table(path) for path in folder.iterdir()):
            raise MagnetError(
                folder,
                expected="a new folder, or a table's",
                found="something else in it",
                remedy="give another --name",
            )
    elif different := _different(read_record(folder), plan, config):
        if not replaces:
            raise MagnetError(
                folder,
                expected="a new run, or one of these settings",
                found=f"one of other {', '.join(different)}",
                remedy="give another --name, or --overwrite",
            )
        notice(
            f"{folder}: its table, of other {', '.join(different)}, will be replaced; its cells stay, and another "
            "--name would keep both"
        )
    return folder


def _different(record: Mapping[str, Any], plan: Plan, config: StudyConfig) -> list[str]:
    """Names of the settings in which a table differs from a plan; which features are meant tells by the cells."""
    different = other_settings(record["config"], config.plain())
    if different != [CHOOSES_FEATURES]:
        return different
    planned = {cell.place(config.fit.runs / CELLS).name for row in plan.rows for cell in row.cells}
    return [] if planned == {Path(cell).name for row in record["rows"] for cell in row["cells"]} else different


def _is_of_a_table(path: Path) -> bool:
    """Whether a file may be of a table that was not written to its end."""
    return any(path.match(pattern) for pattern in OF_A_TABLE)


def other_settings(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Names of the settings in which two tables differ, by which a user gives them.

    A setting that one of them does not know is of a system, or of a version, that the other could not have used.
    """
    one, other = (flat({**as_recorded(config["fit"]), **config, "fit": {}}) for config in (before, now))
    return [name for name in differing(one, other, neutral={*OUTPUT_NEUTRAL, *WHERE}) if name in one and name in other]


def forget_former_fit(folder: Path, *, replaces: bool) -> None:
    """Remove a fit of version 0.1 from a folder, where it may be replaced."""
    if not replaces:
        raise MagnetError(
            folder, expected="a new run", found="a finished one", remedy="give another --name, or --overwrite"
        )
    for name in OF_A_FORMER_FIT:
        (folder / name).unlink(missing_ok=True)


def write_table(folder: Path, plan: Plan, config: StudyConfig, results: Results, *, published: bool) -> str:
    """Write a table in every form and return it as text; `write_record` is to follow, when all of it is there."""
    lines = summarise(plan, results)
    genes = genes_of(plan, results)
    notes = legend(plan, config, lines, genes, published=published)
    faults = dict.fromkeys(results.faults.values())
    for form in FORMS:
        mark = "% " if form == "tex" else ""
        head = "\n".join(f"{mark}{note}" for note in [plan.title, *notes, *(f"failed: {fault}" for fault in faults)])
        write_text(folder / f"table.{form}", f"{head}\n\n{render(lines, form, published=published)}\n")
    write_text(folder / "table.csv", csv_table(lines).write_csv())
    for name, table in (("genes", genes), ("slides", slides_of(plan, results))):
        write_genes(folder / f"{name}.parquet", table)
    draw_table(lines, plan.title, notes[0], folder / "figure.png")
    return (folder / "table.txt").read_text(encoding="utf-8")


def write_record(folder: Path, plan: Plan, config: StudyConfig, results: Results) -> None:
    """Write the file that makes a table whole."""
    record = describe(plan, config, results)
    write_sealed(folder / TABLE, {**record, FILES: file_checksums(folder, read_back(folder))})


def legend(
    plan: Plan, config: StudyConfig, lines: Sequence[Line], genes: pl.DataFrame, *, published: bool
) -> list[str]:
    """Return a text that says what the numbers are, and of which data each column is."""
    fold_count, slides = max(line.folds for line in lines), max(line.slides for line in lines)
    data = config.fit.data
    backbones = list(dict.fromkeys(cell.config.data.backbone for cell in plan.cells))
    bins = "cached features, no encoder trained" if config.fit.encoder.mode == "frozen" else "encoders fine-tuned"
    included = f", {len(data.include)} of them by name (data.include)" if data.include else ""
    tested = f"{counted(slides, 'test slide')} in {counted(fold_count, 'fold')}"
    notes = [
        f"data: {data.store} ({tested}), features of {', '.join(backbones)}, {bins}",
        f"protocol: {PROTOCOLS[config.protocol].says}; {data.panel} genes{included}",
        "mean±sd over folds; 95 %: bootstrap over patients and over neighbourhoods of bins within their slides",
        f"÷ ceiling: PCC per gene as a share of the noise ceiling, {BOUND}",
        "ours − system: what MagNet, or the row marked 'all blocks' or the first backbone, gains in PCC per gene, with "
        "its 95 %, paired",
    ]
    if low := low_ceiling_note(genes):
        notes.insert(-1, low)
    if other := other_than_usual(config.fit):
        notes.append(f"MagNet with {', '.join(other)}")
    if config.fit.seeds > 1:
        first, number = config.fit.seed, config.fit.seeds
        notes.append(f"learnt systems: mean prediction of {number} trainings, seeds {first} to {first + number - 1}")
    if len(backbones) > 1:
        notes.append(f"subgraphs of {config.fit.optim.batch_size} bins for every backbone")
    if published:
        notes.append(
            "columns VUMC and CRC: as published, on the authors' kidney slides and on the colorectal ones of Oliveira "
            "et al. (2024), not on the data above; their PCC is per bin"
        )
    incomplete = [f"{line.group} {line.title}" for line in lines if line.folds < fold_count]
    return notes + ([f"not on every fold: {', '.join(incomplete)}"] if incomplete else [])


def other_than_usual(config: FitConfig) -> list[str]:
    """Settings of what MagNet is, as a user gives them, that are not the defaults; those of its training left out."""
    given, usual = (flat(each.plain()) for each in (config, FitConfig()))
    names = [name for name in given if name in OF_MAGNET or name.startswith(TABLES_OF_MAGNET)]
    return [f"{name}={_as_given(given[name])}" for name in names if given[name] != usual.get(name)]


def _as_given(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


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

"""The section of a study or a cross-validation: from its folder to blocks, in the order a reader asks.

In: study.json, table.csv, genes.parquet, slides.parquet, and, where there are any, pivotal.csv, maps, and the trainings
in the cells' run.json. Out: a `Section`.
"""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import polars as pl

from magnet_core.checksums import FILES, check_files
from magnet_core.resampling import METRICS, metric_titles
from train.places import TABLE, anew, find_cell, members_in, read_back
from train.report.figures import Estimate, Plot, estimates
from train.report.folder import TrainingHistory, number_of, read_csv, read_json, read_table, read_training
from train.report.genes import COLUMNS as GENE_COLUMNS
from train.report.genes import against_ceiling, against_system, best_and_worst, by_gene, note_on
from train.report.parts import Block, Listing, Plots, Section, Table, unrepeated
from train.report.pictures import maps
from train.report.settings import facts, folds_table, settings, versions
from train.report.trainings import kept_table, training_plots
from train.studies.ceiling_note import BOUND, low_ceiling_note
from train.studies.numbers import counted, difference, number, span, spread
from train.studies.published import DATASETS, MEASURES
from train.studies.render import best_of
from train.studies.summary import Line, Statistic
from train.systems.table import CEILING_TITLE

FORMER_CEILING = "noise ceiling"  # its title in tables of before
PARTS = ("mean", "sd", "low", "high")
NUMBERS = tuple(f"{name}_{part}" for name in ("mse", "pcc_gene", "ours_minus_system") for part in PARTS)
TABLE_COLUMNS = ("group", "system", "folds", "slides", *NUMBERS, "of_ceiling")
MOST_ROWS = 60  # of a table that is not folded
SINGLE = {"mse": "MSE", "pcc": "PCC", "similarity": "SSIM"}
NOTE = (
    "Mean±sd over folds; 95 %: bootstrap over test slides and over neighbourhoods within them. ÷ ceiling: PCC per gene "
    f"as a share of the noise ceiling on the same slides, {BOUND}. Ours − system: what the row set off gains in PCC "
    "per gene, with its 95 %, paired."
)

CEILING_NOTE = (
    "Over the bins that the table was made on; maps of whole slides have scores of their own. The ceiling, "
    f"{BOUND}, is estimated from the counts, for a single gene to some 0.03, so that one may lie above it."
)


def study_section(folder: Path, *, picture_bytes: int) -> Section:
    """Read a study's folder; an unfinished study is an error."""
    record = read_json(folder / TABLE, ("title", "rows", "folds", "config"))
    of_record = [name for name in read_back(folder) if name in record.get(FILES, {})]
    check_files(folder, of_record, record.get(FILES), remedy=anew(folder / TABLE))
    lines = read_lines(folder / "table.csv")
    genes = read_table(folder / "genes.parquet", ("group", "system", *GENE_COLUMNS))
    slides = read_table(folder / "slides.parquet", ("group", "system", "fold", "slide_id"))
    shown = {group: line for group in groups_of(lines) if (line := main_line(lines, group))}
    others = {group: line for group, main in shown.items() if (line := best_line(lines, group, but=main))}
    folds, config = record["folds"], record["config"]
    blocks: list[Block] = [
        folds_table(folds),
        *settings(config),
        systems_table(lines, shown, low_ceiling_note(genes)),
        *published_table(lines),
        Plots("PCC per gene by system, with its 95 %", [points_of(lines, group, shown) for group in groups_of(lines)]),
        *gene_blocks(shown, others, genes),
        slides_table(slides),
        *training_blocks(record, folder),
        *single_genes(folder),
        *maps(folder, limit=picture_bytes),
        *failures(record, lines),
        versions(record),
    ]
    tested = sorted({slide for sides in folds.values() for slide in sides["test"]})
    about = [
        ("targets", ", ".join(groups_of(lines))),
        *facts(config.get("fit", {}), protocol=config.get("protocol", "")),
        ("tested on", f"{counted(len(tested), 'slide')} in {counted(len(folds), 'fold')}: {', '.join(tested)}"),
    ]
    main = [main_row(folder.name, line, tested) for line in shown.values()]
    return Section(f"{folder.name}: {record['title']}", str(folder), about, blocks, main)


def read_lines(path: Path) -> list[Line]:
    """Read the lines of a study's table, which does not mark our own: `is_ours` is false in all."""
    lines = []
    for row in read_csv(path, TABLE_COLUMNS):
        columns = [name for name in METRICS if f"{name}_mean" in row]  # another version may have had other metrics
        measured = columns if row["mse_mean"] else ["pcc_gene"] if row["pcc_gene_mean"] else []
        metrics = {name: _statistic(row, name) for name in measured}
        behind = _statistic(row, "ours_minus_system") if row["ours_minus_system_mean"] else None
        title = CEILING_TITLE if row["system"] == FORMER_CEILING else row["system"]
        figures = [row.get(f"paper_{dataset}_{measure}", "") for dataset in DATASETS for measure in MEASURES]
        first, second, third, fourth, fifth, sixth = figures
        published = (first, second, third, fourth, fifth, sixth) if any(figures) else None
        lines.append(
            Line(
                row["group"], title, False, int(row["folds"]), int(row["slides"]), metrics,
                number_of(row["of_ceiling"]), behind, published,
            )
        )  # fmt: skip
    return lines


def groups_of(lines: Sequence[Line]) -> list[str]:
    """Groups in the order of the table."""
    return list(dict.fromkeys(line.group for line in lines))


def main_line(lines: Sequence[Line], group: str) -> Line | None:
    """Return the one line that is behind no other, or, without it, the line of highest PCC per gene."""
    in_group = [line for line in lines if line.group == group and "mse" in line.metrics]
    alone = [line for line in in_group if line.behind is None]
    if len(alone) == 1:
        return alone[0]
    return best_line(lines, group)


def best_line(lines: Sequence[Line], group: str, *, but: Line | None = None) -> Line | None:
    """Return the predicting line of highest PCC per gene in a group, one of them left out with its single seeds."""
    in_group = [line for line in lines if line.group == group and "mse" in line.metrics]
    if but is not None:
        in_group = [line for line in in_group if line is not but and not line.title.startswith(f"{but.title}, seed ")]
    with_pcc = [line for line in in_group if math.isfinite(line.metrics["pcc_gene"].mean)]
    return max(with_pcc, key=lambda line: line.metrics["pcc_gene"].mean, default=None)


def main_row(name: str, line: Line, tested: Sequence[str]) -> list[str]:
    """A line as it stands in the table of all results."""
    metrics = line.metrics
    return [
        name, line.group, line.title, ", ".join(tested), *(spread(metrics.get(each)) for each in METRICS),
        span(metrics.get("pcc_gene")), number(line.of_ceiling, 2),
    ]  # fmt: skip


def systems_table(lines: Sequence[Line], shown: Mapping[str, Line], of_ceiling: str = "") -> Table:
    """The study's table: system by metric; below it stands what is known `of_ceiling` beyond the bound."""
    rows, best = [], set()
    for index, line in enumerate(lines):
        leading = best_of([other for other in lines if other.group == line.group])
        for place, name in enumerate(METRICS):
            value = line.metrics.get(name)
            if "mse" in line.metrics and value is not None and value.mean == leading.get(name):
                best.add((index, 2 + place))
        rows.append(
            [
                line.group, line.title, *(spread(line.metrics.get(name)) for name in METRICS),
                span(line.metrics.get("pcc_gene")), number(line.of_ceiling, 2), difference(line.behind),
                str(line.folds), str(line.slides),
            ]
        )  # fmt: skip
    headings = ("", "system", *metric_titles(), "its 95 %", "÷ ceiling", "ours − system", "folds", "slides")
    ours = frozenset(index for index, line in enumerate(lines) if line is shown.get(line.group))
    return Table("Systems", headings, unrepeated(rows), 2, f"{NOTE} {of_ceiling}".strip(), frozenset(best), ours)


def published_table(lines: Sequence[Line]) -> list[Table]:
    """The paper's figures for the same rows, on its own data."""
    rows = [[line.group, line.title, *line.published] for line in lines if line.published]
    headings = ("", "system", *(f"{dataset} {measure}" for dataset in DATASETS for measure in MEASURES))
    note = (
        "Kidney slides of the paper's authors (VUMC) and colorectal ones of Oliveira et al. 2024 (CRC), not the data "
        "above; their PCC is per bin."
    )
    heading = "What the paper reports of these systems, on its own data"
    return [Table(heading, headings, unrepeated(rows), 2, note, folded=True)] if rows else []


def points_of(lines: Sequence[Line], group: str, shown: Mapping[str, Line]) -> Plot:
    """PCC per gene of each system of a group with its interval."""
    rows, ceiling = [], Statistic(float("nan"), float("nan"))
    for line in lines:
        value = line.metrics.get("pcc_gene")
        if line.group != group or value is None:
            continue
        if line.title == CEILING_TITLE:
            ceiling = value
        else:
            rows.append(Estimate(line.title, value.mean, value.low, value.high, line is shown.get(group)))
    return estimates(group, rows, x_title="dashed: noise ceiling (upper bound)", ceiling=ceiling.mean)


def gene_blocks(shown: Mapping[str, Line], others: Mapping[str, Line], genes: pl.DataFrame) -> list[Block]:
    """Each gene against its ceiling and against the best of the other systems, and the best and worst genes."""
    names = {group: f"{group}, {line.title}" for group, line in shown.items()}
    ours, theirs = (
        {
            group: by_gene(genes.filter(pl.col("group") == group, pl.col("system") == line.title))
            for group, line in lines.items()
        }
        for lines in (shown, others)
    )
    of_ceiling = [plot for group, table in ours.items() if (plot := against_ceiling(names[group], table))]
    of_system = [
        plot
        for group, line in others.items()
        if (plot := against_system(group, ours[group], theirs[group], name=shown[group].title, other_name=line.title))
    ]
    titled = {
        "Genes against their noise ceiling (upper bound)": (of_ceiling, CEILING_NOTE),
        "Genes against the best of the others": (of_system, ""),
    }
    blocks: list[Block] = [
        Plots(title, plots, f"{note_on(plots)} {note}".strip()) for title, (plots, note) in titled.items() if plots
    ]
    return blocks + [block for group, table in ours.items() for block in best_and_worst(names[group], table)]


def slides_table(slides: pl.DataFrame) -> Table:
    """Metrics by test slide."""
    rows = [
        [row["group"], row["system"], str(row["fold"]), row["slide_id"], *(number(row.get(name)) for name in METRICS)]
        for row in slides.iter_rows(named=True)
    ]
    headings = ("", "system", "fold", "slide", *metric_titles())
    return Table("Test slides", headings, unrepeated(rows), 4, folded=len(rows) > MOST_ROWS)


def training_blocks(record: Mapping[str, Any], folder: Path) -> list[Block]:
    """Curves of the rows that were trained in epochs, and which epochs were kept."""
    by_group = trainings_of(record, folder)
    plots = [plot for group, trained in by_group.items() for plot in training_plots(group, trained)]
    if not plots:
        return []
    kept = kept_table([(group, *each) for group, trained in by_group.items() for each in trained])
    return [Plots("Training", plots, "A line a fold; a dot marks the epoch whose weights were kept."), kept]


def trainings_of(record: Mapping[str, Any], folder: Path) -> dict[str, list[tuple[str, str, TrainingHistory]]]:
    """Return (system, fold, training) by group, of the rows that were trained in epochs, and of members of a mean."""
    by_group: dict[str, list[tuple[str, str, TrainingHistory]]] = {}
    of_rows = {Path(cell).name for row in record["rows"] for cell in row["cells"]}
    for row in record["rows"]:
        for cell in row["cells"]:
            found, fold = find_cell(cell, folder), fold_of(Path(cell).name)
            members = members_in(found)
            runs = {f"{fold}, {number} of {len(members)}": member for number, member in enumerate(members, 1)}
            for name, run in (runs or {fold: found}).items():
                if (not runs or run.name not in of_rows) and (training := read_training(run)):
                    by_group.setdefault(row["group"], []).append((row["title"], name, training))
    return by_group


def fold_of(name: str) -> str:
    """The fold in a cell's name, such as fold 2."""
    part = next((part for part in reversed(name.split("-")) if part.startswith("fold")), name)
    return part.replace("fold", "fold ", 1)


def single_genes(folder: Path) -> list[Block]:
    """The genes that were asked for: means over test slides, if any were."""
    if not (folder / "pivotal.csv").is_file():
        return []
    numbers = [pl.col(name).cast(pl.Float64, strict=False).fill_nan(None) for name in SINGLE]
    means = (
        pl.DataFrame(read_csv(folder / "pivotal.csv", ("group", "gene", "system", *SINGLE)))
        .with_columns(numbers)
        .group_by("group", "gene", "system", maintain_order=True)
        .agg(pl.col(*SINGLE).mean())
        .sort("group", "gene", maintain_order=True)
    )
    rows = [
        [row["group"], row["gene"], row["system"], *(number(row[name]) for name in SINGLE)]
        for row in means.iter_rows(named=True)
    ]
    headings = ("", "gene", "system", *SINGLE.values())
    return [Table("Single genes", headings, unrepeated(rows), 3, "Means over test slides.")]


def failures(record: Mapping[str, Any], lines: Sequence[Line]) -> list[Block]:
    """Cells that failed, and rows that lack a fold."""
    most = max((line.folds for line in lines), default=0)
    partial = [f"{line.group} {line.title}: {line.folds} of {most} folds" for line in lines if line.folds < most]
    said = [*record.get("faults", []), *partial]
    return [Listing("What failed", said or ["nothing"], alarming=bool(said))]


def _statistic(row: Mapping[str, str], name: str) -> Statistic:
    return Statistic(*(number_of(row[f"{name}_{part}"]) for part in PARTS))

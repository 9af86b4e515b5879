"""A table as terminal text, Markdown, LaTeX and CSV.

In: the lines of a table. Out: text. The forms for people show mean±sd, as the paper does, and the best of each group in
bold where the form allows it; the CSV has every number in full and in a column of its own.
"""

import math
from collections.abc import Mapping, Sequence

import polars as pl
from tabulate import tabulate

from magnet_core.resampling import METRICS, metric_titles
from train.studies.numbers import NOTHING, difference, number, span, spread
from train.studies.published import DATASETS, MEASURES
from train.studies.summary import Line, Statistic

FORMS = {"txt": "simple", "md": "github", "tex": "latex_booktabs"}
BOLD = {"txt": "{}", "md": "**{}**", "tex": "\ue000{}\ue001"}
# Characters that plain LaTeX lacks in text mode, and bold face, whose braces tabulate would escape.
LATEX = {"±": r"$\pm$", "÷": r"$\div$", "−": "$-$", "–": "--", "…": r"\dots{}", "µ": r"\textmu{}"}
LATEX |= {"\ue000": r"\textbf{", "\ue001": "}"}


def render(lines: Sequence[Line], form: str, *, published: bool) -> str:
    """Lay lines out in one of `FORMS`; `published` adds the paper's figures, by data set and measure."""
    headings = ["", "system", *metric_titles(), "its 95 %", "÷ ceiling", "ours − system"]
    if published:
        headings += [f"{dataset} {measure}" for dataset in DATASETS for measure in MEASURES]
    rows = []
    group = None
    for line in lines:
        best = best_of([other for other in lines if other.group == line.group])
        row = ["" if line.group == group else line.group, line.title]
        group = line.group
        for name in METRICS:
            text = spread(value := line.metrics.get(name))
            row.append(BOLD[form].format(text) if value is not None and value.mean == best.get(name) else text)
        row += [span(line.metrics.get("pcc_gene")), number(line.of_ceiling, 2), difference(line.behind)]
        if published:
            row += line.published or [NOTHING] * len(DATASETS) * len(MEASURES)
        rows.append(row)
    text = tabulate(rows, headings, tablefmt=FORMS[form], disable_numparse=True)
    if form == "tex":
        for sign, command in LATEX.items():
            text = text.replace(sign, command)
    result: str = text
    return result


def best_of(lines: Sequence[Line]) -> Mapping[str, float]:
    """Return the best mean of each metric among the lines that predict; the noise ceiling does not."""
    best = {}
    predicting = [line for line in lines if "mse" in line.metrics]
    most_folds = max((line.folds for line in predicting), default=0)  # rows that lack a fold cover other slides
    for name, metric in METRICS.items():
        means = [line.metrics[name].mean for line in predicting if line.folds == most_folds]
        finite_means = [mean for mean in means if math.isfinite(mean)]
        if finite_means:
            best[name] = min(finite_means) if metric.lower_is_better else max(finite_means)
    return best


def csv_table(lines: Sequence[Line]) -> pl.DataFrame:
    """Return a row for each line, with each number in its own column; a missing number is empty."""
    rows = []
    for line in lines:
        row: dict[str, object] = {"group": line.group, "system": line.title, "folds": line.folds, "slides": line.slides}
        for name in METRICS:
            row |= _columns(name, line.metrics.get(name))
        row |= {"of_ceiling": _known(line.of_ceiling)}
        row |= _columns("ours_minus_system", line.behind)
        for index, (dataset, measure) in enumerate((d, m) for d in DATASETS for m in MEASURES):
            row[f"paper_{dataset}_{measure}"] = line.published[index] if line.published else None
        rows.append(row)
    return pl.DataFrame(rows, infer_schema_length=None)


def _columns(name: str, value: Statistic | None) -> dict[str, float | None]:
    parts = ("mean", "sd", "low", "high")
    return {f"{name}_{part}": None if value is None else _known(getattr(value, part)) for part in parts}


def _known(value: float) -> float | None:
    return value if math.isfinite(value) else None

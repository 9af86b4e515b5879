"""A table as terminal text, Markdown, LaTeX and CSV.

In: the lines of a table. Out: text. People's forms show mean ± sd; the CSV has every number in a column of its own.
"""

import math
from collections.abc import Sequence

import polars as pl
from tabulate import tabulate

from magnet_core.resampling import METRICS
from train.evaluate import COLUMNS
from train.studies.published import DATASETS, MEASURES
from train.studies.summary import Line, Statistic

FORMS = {"txt": "simple", "md": "github", "tex": "latex_booktabs"}
NOTHING = "–"
LATEX_SIGNS = {"±": r"$\pm$", "÷": r"$\div$", "−": "$-$", "–": "--", "…": r"\dots{}", "µ": r"\textmu{}"}


def render(lines: Sequence[Line], form: str, *, published: bool) -> str:
    """Lay lines out in one of `FORMS`; `published` adds the paper's figures, by data set and measure."""
    headings = ["", "system", *COLUMNS.values(), "PCC per gene, 95 %", "÷ ceiling", "ours − system, 95 %"]
    if published:
        headings += [f"paper, {dataset}: {measure}" for dataset in DATASETS for measure in MEASURES]
    cells = []
    group = None
    for line in lines:
        row = ["" if line.group == group else line.group, line.title]
        group = line.group
        row += [_spread(line.metrics.get(name)) for name in METRICS]
        row += [_range(line.metrics.get("pcc_gene")), _number(line.of_ceiling, 2), _difference(line.behind)]
        if published:
            row += line.published or [NOTHING] * len(DATASETS) * len(MEASURES)
        cells.append(row)
    text = tabulate(cells, headings, tablefmt=FORMS[form], disable_numparse=True)
    if form == "tex":  # plain LaTeX has no glyph for these in text mode
        for sign, command in LATEX_SIGNS.items():
            text = text.replace(sign, command)
    return text


def csv_table(lines: Sequence[Line]) -> pl.DataFrame:
    """One row a line, each number in its own column; empty where there is none."""
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


def _number(value: float, digits: int) -> str:
    return f"{value:.{digits}f}" if math.isfinite(value) else NOTHING


def _spread(value: Statistic | None) -> str:
    if value is None or not math.isfinite(value.mean):
        return NOTHING
    return f"{value.mean:.4f}" + (f" ± {value.sd:.4f}" if math.isfinite(value.sd) else "")


def _range(value: Statistic | None) -> str:
    if value is None or not math.isfinite(value.low):
        return NOTHING
    return f"{value.low:.3f} … {value.high:.3f}"


def _difference(value: Statistic | None) -> str:
    if value is None or not math.isfinite(value.mean):
        return NOTHING
    return f"{value.mean:+.4f} [{value.low:+.4f}, {value.high:+.4f}]"

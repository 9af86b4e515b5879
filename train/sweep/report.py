"""The page of a sweep: its best trials, and how the search went, in one file without anything from elsewhere.

In: a study. Out: `report.html`. The plots are Optuna's; the importances are those of PED-ANOVA (Watanabe et al. 2023).
"""

import base64
import html
import io
import warnings
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import optuna
from optuna.exceptions import ExperimentalWarning
from optuna.trial import FrozenTrial
from tabulate import tabulate

from magnet_core.files import write_text
from train.sweep.config import Sweep
from train.sweep.record import ending, whole_trials
from train.sweep.study import REFUSED

REPORT = "report.html"
SHOWN_TRIALS = 20
ENOUGH_FOR_IMPORTANCE = 10  # whole trials: the tenth of them that is best is compared with all
SLICES_A_ROW = 3
VALUE = "PCC per gene"
DPI = 110

PAGE = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<title>{title}</title>
<style>
body {{ font: 15px/1.5 system-ui, sans-serif; max-width: 70rem; margin: 2rem auto; padding: 0 1rem; color: #222; }}
table {{ border-collapse: collapse; }}
th, td {{ padding: .25rem .75rem; border-bottom: 1px solid #ddd; }}
img {{ max-width: 100%; }}
</style>
<h1>{title}</h1>
{body}
</html>
"""


def write_report(study: optuna.Study, sweep: Sweep) -> None:
    """Write the page into the sweep's folder."""
    trials = study.get_trials(deepcopy=False)
    counts = [f"{sum(ending(trial) == word for trial in trials)} {word}" for word in ("whole", "pruned", "refused")]
    body = [
        f"<p>{', '.join(counts)}. Value: PCC per gene on the validation slides, which are training slides of the fold "
        f"{sweep.base.fold}; test slides were not looked at.</p>",
        "<h2>Best trials</h2>",
        best_table(whole_trials(study)[:SHOWN_TRIALS], sweep),
        *plots(study, sweep),
        *refusals(trials),
    ]
    title = html.escape(f"Sweep {sweep.folder.name}")
    write_text(sweep.folder / REPORT, PAGE.format(title=title, body="\n".join(body)))


def best_table(trials: list[FrozenTrial], sweep: Sweep) -> str:
    """The best trials and their settings, as HTML."""
    rows = [[trial.number, trial.value, *(trial.params.get(name) for name in sweep.space)] for trial in trials]
    return str(tabulate(rows, ["trial", VALUE, *sweep.space], tablefmt="html", floatfmt=".4g"))


def refusals(trials: list[FrozenTrial]) -> list[str]:
    """Why trials were refused, a line for each reason."""
    reasons = sorted({trial.user_attrs[REFUSED] for trial in trials if REFUSED in trial.user_attrs})
    lines = [f"<li>{html.escape(reason)}</li>" for reason in reasons]
    return ["<h2>Refused</h2>", "<ul>", *lines, "</ul>"] if lines else []


def plots(study: optuna.Study, sweep: Sweep) -> list[str]:
    """History, importances and slices, as far as there are trials enough."""
    from optuna.visualization import matplotlib as drawn

    whole = len(whole_trials(study))
    if not whole:
        return ["<p>No trial was trained to its end: there is nothing to draw.</p>"]
    parts = ["<h2>History</h2>", picture(partial(drawn.plot_optimization_history, study, target_name=VALUE))]
    parts += ["<h2>Importance</h2>"]
    if reason := why_no_importance(study):
        parts += [f"<p>{html.escape(reason)}</p>"]
    else:
        parts += [picture(partial(drawn.plot_param_importances, study, target_name=VALUE))]
    parts += ["<h2>Value by setting</h2>"]
    for names in in_rows(varied(study, sweep)):
        parts += [picture(partial(drawn.plot_slice, study, params=names, target_name=VALUE))]
    return parts


def varied(study: optuna.Study, sweep: Sweep) -> list[str]:
    """The settings of which whole trials have several values; others cannot be drawn."""
    trials = whole_trials(study)
    return [name for name in sweep.space if len({trial.params[name] for trial in trials}) > 1]


def in_rows(names: list[str]) -> list[list[str]]:
    """Settings by the picture that shows them."""
    return [names[start : start + SLICES_A_ROW] for start in range(0, len(names), SLICES_A_ROW)]


def why_no_importance(study: optuna.Study) -> str:
    """Say why the importance of settings cannot be told; nothing where it can."""
    whole = whole_trials(study)
    if len(whole) < ENOUGH_FOR_IMPORTANCE:
        return f"The importance of settings needs {ENOUGH_FOR_IMPORTANCE} whole trials; there are {len(whole)}."
    if whole[0].value == whole[-1].value:
        return "All whole trials have the same value: no setting is more important than another."
    return ""


def picture(draw: Callable[[], Any]) -> str:
    """Draw with matplotlib, without a display, and return an image that the page holds itself."""
    import matplotlib
    import matplotlib.pyplot as plt
    from matplotlib.ticker import NullFormatter

    matplotlib.use("Agg")
    with plt.rc_context(), warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        axes = np.ravel(draw())
        for ax in axes:
            ax.xaxis.set_minor_formatter(NullFormatter())  # labels of small ticks of a log axis overlap
        figure = axes[0].figure
        buffer = io.BytesIO()
        figure.savefig(buffer, format="png", dpi=DPI, bbox_inches="tight")
        plt.close(figure)
    return f'<img alt="" src="data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}">'

"""How a search of hyper-parameters went, as pictures: history, importances, and the value by setting.

In: the study of a sweep. Out: blocks of a page. The plots are Optuna's, drawn by matplotlib; the importances are those
of PED-ANOVA (Watanabe et al. 2023).
"""

import base64
import io
import warnings
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import numpy as np
import optuna
from optuna.exceptions import ExperimentalWarning

from train.report.parts import Block, Listing, Pictures
from train.sweep.record import whole_trials

ENOUGH_FOR_IMPORTANCE = 10  # whole trials: the tenth of them that is best is compared with all
SLICES_A_ROW = 3
VALUE = "PCC per gene"
DPI = 110


def search_blocks(study: optuna.Study, space: Iterable[str]) -> list[Block]:
    """History, importances and slices, as far as there are trials enough."""
    from optuna.visualization import matplotlib as drawn

    if not whole_trials(study):
        return [Listing("History", ["No trial was trained to its end: there is nothing to draw."])]
    history = picture(partial(drawn.plot_optimization_history, study, target_name=VALUE))
    blocks: list[Block] = [Pictures("History", [("", history)])]
    if reason := why_no_importance(study):
        blocks.append(Listing("Importance", [reason]))
    else:
        blocks.append(
            Pictures("Importance", [("", picture(partial(drawn.plot_param_importances, study, target_name=VALUE)))])
        )
    slices = [
        ("", picture(partial(drawn.plot_slice, study, params=names, target_name=VALUE)))
        for names in in_rows(varied(study, space))
    ]
    return [*blocks, Pictures("Value by setting", slices)] if slices else blocks


def varied(study: optuna.Study, space: Iterable[str]) -> list[str]:
    """The settings of which whole trials have several values; others cannot be drawn."""
    trials = whole_trials(study)
    return [name for name in space if len({trial.params[name] for trial in trials}) > 1]


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
    """Draw with matplotlib, without a display, and return an image as a data URI, which the page holds itself."""
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
    return f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"

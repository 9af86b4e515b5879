"""What static figures share: formats, type, colours that colour-blind readers tell apart, and writing a file.

In: a matplotlib `Figure`. Out: a file, whole or not at all, whose words are text in PDF and SVG, so that they can be
searched and edited. Drawn without a display.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure

from magnet_core.files import replacing

DPI = 220  # of PNG, and of what is a raster in the other formats
MM = 1 / 25.4  # inches
OURS, OTHERS, FAINT = "#b5281e", "#34495e", "#888888"
# Okabe and Ito's, the yellow left out, which is faint on white.
COLOURS = ("#d55e00", "#0072b2", "#009e73", "#cc79a7", "#56b4e9", "#e69f00", "#000000")
_STYLE: Any = {  # as matplotlib names its settings
    "pdf.fonttype": 42,
    "svg.fonttype": "none",
    "svg.hashsalt": "magnet-hd",
    "font.size": 8,
    "axes.titlesize": 8,
    "axes.labelsize": 8,
    "axes.linewidth": 0.6,
    "xtick.labelsize": 7,
    "ytick.labelsize": 7,
    "legend.fontsize": 7,
}
_NO_DATE = {"png": {}, "pdf": {"CreationDate": None}, "svg": {"Date": None}}  # the same figure is the same file


@contextmanager
def style() -> Iterator[None]:
    """Within it, figures are built and saved in the type of all static figures."""
    with mpl.rc_context(_STYLE):
        yield


def save(figure: Figure, path: Path, form: str) -> None:
    """Write a figure as png, pdf or svg, cut to what is drawn."""
    with style(), replacing(path) as partial:
        figure.savefig(partial, format=form, dpi=DPI, metadata=_NO_DATE[form], bbox_inches="tight", pad_inches=0.04)

"""Options that `extract plan` and `train plan` share, and what they ask for. Imports nothing that takes long."""

import math
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

import typer
from tabulate import tabulate

from magnet_core.errors import MagnetError
from magnet_core.forecast.rates import GPUS, Gpu, read_rates
from magnet_core.registry import look_up

WIDTH = 112  # of a note, in characters
USUAL_SLIDES = (10, 1_000, 100_000)

SlidesOption = Annotated[int | None, typer.Option(min=1, help="Slides.", show_default="10, 1,000 and 100,000")]
GpuOption = Annotated[str, typer.Option(help=f"The GPU, where none was measured: {', '.join(GPUS)}.")]
GpusOption = Annotated[int | None, typer.Option(min=1, help="GPUs, or cores, at work: how many days?")]
DaysOption = Annotated[float | None, typer.Option(min=0.01, help="Days there are: how many GPUs, or cores?")]
PriceOption = Annotated[float | None, typer.Option(min=0, help="EUR for an hour of a GPU.")]
RatesOption = Annotated[
    Path | None, typer.Option("--rates", help="Rates measured on your GPU, in place of assumptions: docs/plan.md.")
]


@dataclass(frozen=True)
class Budget:
    """For how many slides, on what GPU; how many of them or how many days, None where not asked; EUR a GPU hour."""

    slides: tuple[int, ...]
    gpu: Gpu
    gpus: int | None
    days: float | None
    price: float | None

    @property
    def headings(self) -> list[str]:
        """Of the columns that `cells` fills."""
        asked = f"days with {self.gpus:,}" if self.gpus else f"number for {self.days:g} days"
        return ["hours", asked, *(["EUR"] if self.price is not None else [])]

    def cells(self, hours: float, *, is_gpu: bool) -> list[str]:
        """Say what so many hours of a device, GPU or core, come to."""
        needed = hours / 24 / self.gpus if self.gpus else math.ceil(hours / 24 / (self.days or 1))
        price = [] if self.price is None else [figure(hours * self.price) if is_gpu else "–"]
        return [figure(hours), figure(needed), *price]


def budget_of(
    slides: int | None, gpu: str, gpus: int | None, days: float | None, price: float | None, rates: Path | None
) -> Budget:
    """Make of the options what is asked; with neither GPUs nor days, for one GPU."""
    chosen = look_up(GPUS, gpu, where="--gpu")
    if gpus is not None and days is not None:
        raise MagnetError("--days", expected="--gpus or --days", found="both", remedy="leave one of them out")
    if rates is not None:
        measured = read_rates(rates)
        chosen = replace(chosen, title=measured[0].device, rates=measured)
    number = gpus or (None if days else 1)
    return Budget((slides,) if slides else USUAL_SLIDES, chosen, number, days, price)


def figure(value: float) -> str:
    """Format a number with some three figures, and commas."""
    if isinstance(value, int) or value >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if value >= 10 else f"{value:.2g}"


def text_table(headings: Sequence[str], rows: Sequence[Sequence[str]], *, words: int = 0) -> str:
    """Lay out a table whose first columns are `words`, and the others numbers, to the right."""
    sides = ["left"] * words + ["right"] * (len(headings) - words)
    return str(tabulate(rows, headings, tablefmt="simple", disable_numparse=True, colalign=sides))


def as_notes(lines: Sequence[str]) -> str:
    """Break long notes into lines."""
    return "\n".join(textwrap.fill(line, WIDTH, subsequent_indent="  ") for line in lines)

"""Numbers as tables and pages show them: three decimals, as the paper has, and a dash where there is none."""

import math

from train.studies.summary import Statistic

NOTHING = "–"


def rounded(value: float, digits: int = 3) -> float:
    """Format a value; a value that rounds to zero has no sign."""
    return round(value, digits) + 0.0


def counted(count: int, noun: str) -> str:
    """Format a number of things."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def number(value: float | None, digits: int = 3) -> str:
    """Format a number, or return a dash where there is none."""
    return NOTHING if value is None or not math.isfinite(value) else f"{rounded(value, digits):.{digits}f}"


def spread(value: Statistic | None) -> str:
    """Format mean±sd."""
    if value is None or not math.isfinite(value.mean):
        return NOTHING
    return number(value.mean) + (f"±{value.sd:.3f}" if math.isfinite(value.sd) else "")


def span(value: Statistic | None) -> str:
    """Format the 95 % interval."""
    if value is None or not math.isfinite(value.low):
        return NOTHING
    return f"{number(value.low)}…{number(value.high)}"


def difference(value: Statistic | None) -> str:
    """Format a gain with its sign and its 95 % interval."""
    if value is None or not math.isfinite(value.mean):
        return NOTHING
    mean, low, high = (rounded(each) for each in (value.mean, value.low, value.high))
    return f"{mean:+.3f} [{low:+.3f}, {high:+.3f}]"

"""The space of a sweep: which settings are searched, and between what.

In: the table `[space]` of a sweep file, by dotted keys or nested tables. Out: a `Dimension` for each setting's name:

    "optim.lr" = {low = 1e-4, high = 1e-2, log = true}
    "model.rounds" = {low = 1, high = 3}
    "model.width" = {choices = [64, 128, 256]}
"""

import typing
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from optuna.trial import BaseTrial

from magnet_core.errors import MagnetError
from magnet_core.registry import near_names
from magnet_core.settings import Settings, nested, settings_of
from train.settings.fit import FitConfig

Value = bool | int | float | str

# What must be the same in all trials: the slides, the genes and the labels that they are judged by; and what a trial
# has nothing to do with.
FIXED = (
    "name", "overwrite", "fold", "runs", "seed", "device", "baselines", "split",
    "data.store", "data.target", "data.panel", "data.panel_by", "data.include", "data.normalise", "validation.share",
    "validation.few", "validation.refit",
)  # fmt: skip
MOST_STEPS = 1_000_000
RANGE_KEYS = ("low", "high", "step", "log")


@dataclass(frozen=True)
class Range:
    """Numbers from `low` to `high`, both included; whole ones where the setting is an integer."""

    low: float
    high: float
    step: float | None = None
    log: bool = False
    whole: bool = False

    @property
    def ends(self) -> tuple[Value, ...]:
        """The values that are tried on a configuration before any trial."""
        return (self.low, self.high)

    def suggest(self, trial: BaseTrial, name: str) -> Value:
        """Draw a value for a trial."""
        if self.whole:
            step = 1 if self.step is None else int(self.step)
            return trial.suggest_int(name, int(self.low), int(self.high), step=step, log=self.log)
        return trial.suggest_float(name, self.low, self.high, step=self.step, log=self.log)


@dataclass(frozen=True)
class Choice:
    """One of several values."""

    choices: tuple[Value, ...]

    @property
    def ends(self) -> tuple[Value, ...]:
        """The values that are tried on a configuration before any trial."""
        return self.choices

    def suggest(self, trial: BaseTrial, name: str) -> Value:
        """Draw a value for a trial."""
        return typing.cast(Value, trial.suggest_categorical(name, self.choices))


Dimension = Range | Choice


def parse_space(table: Mapping[str, Any], *, where: str) -> dict[str, Dimension]:
    """Read the table `[space]`; an unknown setting, or one that may not be searched, is an error."""
    space = dict(_walk(FitConfig, nested(table, where=where), prefix="", where=where))
    if not space:
        raise MagnetError(
            where, expected="settings to search", found="none", remedy='add "optim.lr" = {low = 1e-4, high = 1e-2}'
        )
    return space


def described_space(space: Mapping[str, Mapping[str, Any]]) -> dict[str, Dimension]:
    """Return the space that a sweep's record describes."""
    dimensions: dict[str, Dimension] = {}
    for name, described in space.items():
        values = {key: value for key, value in described.items() if key != "kind"}
        dimensions[name] = Choice(tuple(values["choices"])) if described["kind"] == "choice" else Range(**values)
    return dimensions


def _walk(
    kind: type[Settings], table: Mapping[str, Any], *, prefix: str, where: str
) -> Iterator[tuple[str, Dimension]]:
    fields = kind.model_fields
    for key, value in table.items():
        name = f"{prefix}{key}"
        if key not in fields:
            raise MagnetError(where, expected="a known setting", found=f"'{name}'", remedy=near_names(key, fields))
        if any(name == fixed or name.startswith(f"{fixed}.") for fixed in FIXED):
            raise MagnetError(
                where,
                expected="settings that leave slides, genes and labels the same in all trials",
                found=f"'{name}'",
                remedy="put it into [settings]",
            )
        if not isinstance(value, Mapping):
            raise MagnetError(
                f"{where}: {name}", expected="{low, high} or {choices}", found=repr(value), remedy="write it as a table"
            )
        if inner := settings_of(fields[key]):
            yield from _walk(inner, value, prefix=f"{name}.", where=where)
        elif "choices" in value:
            yield name, _choice(value, where=f"{where}: {name}")
        else:
            yield name, _range(value, fields[key].annotation, where=f"{where}: {name}")


def _choice(table: Mapping[str, Any], *, where: str) -> Choice:
    choices = table["choices"]
    if set(table) != {"choices"}:
        raise MagnetError(where, expected="choices alone", found=", ".join(table), remedy="leave the others out")
    if not isinstance(choices, list) or not all(isinstance(value, Value) for value in choices):
        raise MagnetError(where, expected="a list of values", found=repr(choices), remedy="write choices = [a, b]")
    if not choices or len({repr(value) for value in choices}) < len(choices):
        raise MagnetError(where, expected="one choice or more, each once", found=repr(choices), remedy="mend the list")
    return Choice(tuple(choices))


def _range(table: Mapping[str, Any], kind: Any, *, where: str) -> Range:
    if kind not in (int, float):
        raise MagnetError(where, expected="{choices = [...]}", found=f"{', '.join(table)}", remedy="list its values")
    for key in table:
        if key not in RANGE_KEYS:
            raise MagnetError(
                where, expected="a known key", found=f"'{key}'", remedy=near_names(key, (*RANGE_KEYS, "choices"))
            )
    if missing := [key for key in ("low", "high") if key not in table]:
        raise MagnetError(where, expected="low and high", found=f"no {missing[0]}", remedy="give both, or choices")
    numbers = {key: value for key, value in table.items() if key != "log"}
    for key, value in numbers.items():
        if isinstance(value, bool) or not isinstance(value, int if kind is int else int | float):
            expected = "a whole number" if kind is int else "a number"
            raise MagnetError(f"{where}: {key}", expected=expected, found=repr(value), remedy="change it")
    if not isinstance(table.get("log", False), bool):
        raise MagnetError(f"{where}: log", expected="true or false", found=repr(table["log"]), remedy="change it")
    result = Range(**numbers, log=table.get("log", False), whole=kind is int)
    _check_range(result, where=where)
    return result


def _check_range(values: Range, *, where: str) -> None:
    low, high, step = values.low, values.high, values.step
    found = f"low={low}, high={high}" + (f", step={step}" if step is not None else "")
    if not -float("inf") < low < high < float("inf"):
        raise MagnetError(where, expected="low below high, both finite", found=found, remedy="change them")
    if values.log and (low <= 0 or step is not None):
        raise MagnetError(where, expected="with log, low above 0 and no step", found=found, remedy="change one of them")
    if step is not None and not _fits(step, low, high):
        raise MagnetError(
            where,
            expected=f"whole steps from low to high, {MOST_STEPS} at most",
            found=found,
            remedy="change high or step",
        )


def _fits(step: float, low: float, high: float) -> bool:
    """Tell whether it is whole steps from low to high, as their decimals say; never of more steps than MOST_STEPS."""
    if not (0 < step < float("inf")) or high - low > MOST_STEPS * step:
        return False
    return (Decimal(str(high)) - Decimal(str(low))) % Decimal(str(step)) == 0

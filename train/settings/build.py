"""From a recipe (TOML) and `--set a.b=c` settings over it to a frozen configuration, and back to plain values."""

import dataclasses
import math
import tomllib
import typing
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, TypeVar

from pydantic import ConfigDict, TypeAdapter, ValidationError

from magnet_core.errors import MagnetError
from magnet_core.registry import near_names

Config = TypeVar("Config")


def read_values(recipe: Path | None, settings: Sequence[str]) -> tuple[dict[str, Any], str]:
    """Return nested tables of a recipe with settings applied, and what to call them in an error."""
    values: dict[str, Any] = {}
    if recipe is not None:
        if not recipe.is_file():
            raise MagnetError("--recipe", expected="a TOML file", found=f"no file {recipe}", remedy="see recipes/")
        try:
            values = tomllib.loads(recipe.read_text())
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise MagnetError(recipe, expected="TOML", found=str(error), remedy="mend the file") from error
    for setting in settings:
        _assign(values, setting)
    where = " or ".join([str(recipe)] * (recipe is not None) + ["--set"] * bool(settings))
    return values, where or "defaults"


def build(kind: type[Config], values: Mapping[str, Any], *, where: str) -> Config:
    """Build a frozen dataclass from nested tables; an unknown key is an error that names the near ones."""
    types = typing.get_type_hints(kind)
    built: dict[str, Any] = {}
    for key, value in values.items():
        if key not in types:
            raise MagnetError(where, expected="a known setting", found=f"'{key}'", remedy=near_names(key, types))
        if dataclasses.is_dataclass(types[key]):
            if not isinstance(value, Mapping):
                names = ", ".join(f"{key}.{item.name}" for item in dataclasses.fields(types[key]))
                raise MagnetError(where, expected=f"settings of '{key}'", found=f"{key}={value}", remedy=f"set {names}")
            built[key] = build(typing.cast(type[Any], types[key]), value, where=f"{where}: {key}")
        else:
            built[key] = _checked(types[key], value, where=f"{where}: {key}")
    return kind(**built)


def as_plain(config: Any) -> dict[str, Any]:
    """Return a configuration as nested tables of JSON values, the inverse of `build`."""
    return {item.name: _plain_value(getattr(config, item.name)) for item in dataclasses.fields(config)}


def _plain_value(value: Any) -> Any:
    if dataclasses.is_dataclass(value):
        return as_plain(value)
    if isinstance(value, Path):
        return str(value)
    return list(value) if isinstance(value, tuple) else value


def check_limits(
    config: Any,
    table: str,
    limits: Mapping[str, tuple[float, float]],
    *,
    above: Collection[str] = (),
    below: Collection[str] = (),
) -> None:
    """Refuse a number outside its limits (low, high).

    It may take both of them, but names in `above` not their low one, and names in `below` not their high one.
    """
    for name, (low, high) in limits.items():
        value, over, under = getattr(config, name), name in above, name in below
        if not ((low < value if over else low <= value) and (value < high if under else value <= high)):
            where = f"{table}.{name}".strip(".")
            expected = _in_words(low, high, over=over, under=under)
            raise MagnetError(where, expected=expected, found=str(value), remedy="change the setting")


def _in_words(low: float, high: float, *, over: bool, under: bool) -> str:
    if high < math.inf and not over and not under:
        return f"{low:g} to {high:g}"
    least = f"{low:g} or more" if not over else f"more than {low:g}" if low else "a positive number"
    if high == math.inf:
        return least
    return f"{least}, below {high:g}" if under else f"{least}, at most {high:g}"


def _checked(kind: Any, value: Any, *, where: str) -> Any:
    try:
        return TypeAdapter(kind, config=ConfigDict()).validate_python(value)
    except ValidationError as error:
        raise MagnetError(
            where, expected=_kind_in_words(kind), found=repr(value), remedy="change the setting"
        ) from error


def _kind_in_words(kind: Any) -> str:
    """Say what a setting may be."""
    if typing.get_origin(kind) is Literal:
        return f"one of {', '.join(map(str, typing.get_args(kind)))}"
    if typing.get_origin(kind) is tuple:
        return 'a list, such as ["one", "two"]'
    words = {int: "a whole number", float: "a number", bool: "true or false", str: "text", Path: "a path"}
    return words.get(kind, str(kind))


def _assign(values: dict[str, Any], setting: str) -> None:
    path, equals, text = setting.partition("=")
    if not equals:
        raise MagnetError("--set", expected="key=value, such as optim.lr=1e-3", found=f"'{setting}'", remedy="add '='")
    *parents, last = path.strip().split(".")
    for parent in parents:
        if not isinstance(values.setdefault(parent, {}), dict):
            raise MagnetError(
                "--set", expected=f"a table '{parent}'", found=f"'{setting}'", remedy="set one of the two"
            )
        values = values[parent]
    try:
        values[last] = tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        values[last] = text.strip()


# Settings that do not change what is learnt, or not by more than rounding.
NEUTRAL = ("device", "overwrite", "compute.checkpoint_minutes", "compute.resident")


def differing(one: dict[str, Any], other: dict[str, Any], prefix: str = "") -> list[str]:
    """Names of the settings in which two configurations differ, such as optim.lr."""
    names = []
    for key in sorted(one.keys() | other.keys()):
        first, second = one.get(key), other.get(key)
        if isinstance(first, dict) and isinstance(second, dict):
            names += differing(first, second, f"{prefix}{key}.")
        elif first != second and f"{prefix}{key}" not in NEUTRAL:
            names.append(f"{prefix}{key}")
    return names

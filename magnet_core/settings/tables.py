"""Nested tables of settings and their dotted names: the one set of helpers for both.

In: plain values as TOML or JSON has them, such as {"optim": {"lr": 1e-3}}. Its dotted name is optim.lr.
"""

from collections.abc import Collection, Mapping
from typing import Any

from magnet_core.errors import MagnetError

MOST_PARTS = 32  # of the dotted name of a setting; ours have three


def flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Flatten nested tables into one table of dotted names; an empty table is a value."""
    rows: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, Mapping) and value:
            rows |= flat(value, f"{prefix}{key}.")
        else:
            rows[f"{prefix}{key}"] = value
    return rows


def nested(values: Mapping[str, Any], *, where: str, parts_around: int = 0) -> dict[str, Any]:
    """Turn dotted names, at every depth, into nested tables; a setting that is given twice is an error."""
    result: dict[str, Any] = {}
    for name, value in values.items():
        parts = name.split(".")
        num_parts = parts_around + len(parts)
        if num_parts > MOST_PARTS:
            expected, found = f"names of at most {MOST_PARTS} parts", f"one of {num_parts}, '{name}'"
            raise MagnetError(where, expected=expected, found=found, remedy="shorten it")
        inner = nested(value, where=where, parts_around=num_parts) if isinstance(value, Mapping) else value
        for key in reversed(parts):
            inner = {key: inner}
        result = _joined(result, inner, where=where)
    return result


def merged(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """Merge nested tables; a value of `above` wins."""
    result = dict(below)
    for key, value in above.items():
        both = isinstance(value, Mapping) and isinstance(result.get(key), Mapping)
        result[key] = merged(result[key], value) if both else value
    return result


def without(values: Mapping[str, Any], names: Collection[str], prefix: str = "") -> dict[str, Any]:
    """Return nested tables without the settings or whole tables of these dotted names."""
    return {
        key: without(value, names, f"{prefix}{key}.") if isinstance(value, Mapping) else value
        for key, value in values.items()
        if f"{prefix}{key}" not in names
    }


def holds(values: Mapping[str, Any], name: str) -> bool:
    """Tell whether nested tables hold a setting of this dotted name, or any setting of a table of this name."""
    return any(setting == name or setting.startswith(f"{name}.") for setting in flat(values))


def differing(one: Mapping[str, Any], other: Mapping[str, Any], *, neutral: Collection[str] = ()) -> list[str]:
    """Return the dotted names in which two plain settings differ, such as optim.lr, without those in `neutral`."""
    first, second = flat(one), flat(other)
    return [
        name
        for name in sorted({*first, *second} - {*neutral})
        if name not in first or name not in second or first[name] != second[name]
    ]


def _joined(one: Mapping[str, Any], other: Mapping[str, Any], *, where: str) -> dict[str, Any]:
    result = dict(one)
    for key, value in other.items():
        if key in one and not (isinstance(one[key], Mapping) and isinstance(value, Mapping)):
            raise MagnetError(where, expected=f"'{key}' once", found="it twice", remedy="leave one of them out")
        result[key] = _joined(one[key], value, where=where) if key in one else value
    return result

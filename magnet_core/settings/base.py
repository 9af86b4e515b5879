"""The base of all settings: a frozen pydantic model whose faults are one line, with limits in words.

In: nested plain values, as a TOML file or JSON holds them. Out: a model; and back with `plain`.
"""

import typing
from collections.abc import Callable, Collection, Mapping
from typing import Any, ClassVar, Literal, Self

from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic.fields import FieldInfo

from magnet_core.errors import MagnetError
from magnet_core.registry import near_names

Names = Callable[[str], str]  # from the dotted name of a setting to where it was said, such as '--set'


class Settings(BaseModel):
    """Settings of one part of the program; `table` is what a recipe calls them, empty for a whole recipe.

    Limits stand in the fields (`Field(ge=1)`), limits between fields in validators that raise `MagnetError`. An unknown
    name is an error that says which names are near.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    table: ClassVar[str] = ""

    def __init__(self, **values: Any) -> None:
        try:
            self.__pydantic_validator__.validate_python(values, self_instance=self)
        except ValidationError as error:
            raise _in_one_line(error, type(self), where=None) from error

    __init__.__pydantic_base_init__ = True  # type: ignore[attr-defined]  # nested settings are validated as fields are

    @classmethod
    def build(cls, values: Mapping[str, Any], *, where: str | Names) -> Self:
        """Build from nested plain values; `where` names their source in an error, for all or for each setting."""
        try:
            return cls.model_validate(dict(values))
        except ValidationError as error:
            raise _in_one_line(error, cls, where=where) from error

    def changed(self, **changes: Any) -> Self:
        """Return a copy with some settings changed, validated again; those of a table are given as a mapping."""
        values = {name: getattr(self, name) for name in type(self).model_fields}
        for name, value in changes.items():
            before = values.get(name)
            if isinstance(before, Settings) and isinstance(value, dict):
                values[name] = before.changed(**value)
            else:
                values[name] = value
        return type(self)(**values)

    def plain(self) -> dict[str, Any]:
        """Return nested tables of JSON values, the inverse of `build`."""
        return self.model_dump(mode="json")


def differing(one: Mapping[str, Any], other: Mapping[str, Any], *, neutral: Collection[str] = ()) -> list[str]:
    """Dotted names of the plain settings in which two differ, such as optim.lr, those in `neutral` left out."""
    first, second = flat(one), flat(other)
    return [
        name
        for name in sorted({*first, *second} - {*neutral})
        if name not in first or name not in second or first[name] != second[name]
    ]


def flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested tables as one, by dotted names; an empty table is a value."""
    rows: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, Mapping) and value:
            rows |= flat(value, f"{prefix}{key}.")
        else:
            rows[f"{prefix}{key}"] = value
    return rows


def without(values: Mapping[str, Any], names: Collection[str], prefix: str = "") -> dict[str, Any]:
    """Nested tables less the settings or whole tables of these dotted names."""
    return {
        key: without(value, names, f"{prefix}{key}.") if isinstance(value, Mapping) else value
        for key, value in values.items()
        if f"{prefix}{key}" not in names
    }


def _in_one_line(error: ValidationError, kind: type[Settings], *, where: str | Names | None) -> MagnetError:
    """The first fault in the project's own words."""
    fault = error.errors(include_url=False)[0]
    parts = [str(part) for part in fault["loc"]]
    fields = _fields_along(kind, parts)
    place = ".".join([kind.table] * bool(kind.table) + parts[: len(fields) or 1]) or "settings"
    if fault["type"] == "extra_forbidden":
        *parents, name = parts
        owner = _settings_at(kind, parents)
        place = ".".join([kind.table] * bool(kind.table) + parts)
        near = near_names(name, owner.model_fields)
        return MagnetError(_at(where, place, parents), expected="a known setting", found=f"'{name}'", remedy=near)
    field = fields[-1] if fields else None
    if field is not None and (inner := _settings_of(field)) is not None and fault["type"] == "model_type":
        names = ", ".join(f"{place}.{name}" for name in inner.model_fields)
        found = f"{place}={fault['input']}"
        return MagnetError(_at(where, place), expected=f"settings of '{place}'", found=found, remedy=f"set {names}")
    expected = fault["msg"] if field is None else in_words(field)
    return MagnetError(_at(where, place), expected=expected, found=_shown(fault["input"]), remedy="change the setting")


def _at(where: str | Names | None, place: str, parents: list[str] | None = None) -> str:
    """Name a setting with its source; an unknown one is named by the table it stands in."""
    shown = place if parents is None else ".".join(parents)
    source = where(place) if callable(where) else where
    return ": ".join(part for part in (source, shown) if part) or place


def _shown(value: Any) -> str:
    return repr(value) if isinstance(value, str) else str(value)


def _fields_along(kind: type[Settings], parts: list[str]) -> list[FieldInfo]:
    """The fields that the dotted name runs through, as far as it does."""
    fields: list[FieldInfo] = []
    owner: type[Settings] | None = kind
    for part in parts:
        if owner is None or part not in owner.model_fields:
            break
        fields.append(owner.model_fields[part])
        owner = _settings_of(fields[-1])
    return fields


def _settings_at(kind: type[Settings], parents: list[str]) -> type[Settings]:
    fields = _fields_along(kind, parents)
    inner = _settings_of(fields[-1]) if fields else None
    return inner or kind


def _settings_of(field: FieldInfo) -> type[Settings] | None:
    kind = field.annotation
    return kind if isinstance(kind, type) and issubclass(kind, Settings) else None


def in_words(field: FieldInfo) -> str:
    """Say what a setting may be: its own description, its limits where it has some, or its kind."""
    if field.description:
        return field.description
    kind: Any = field.annotation
    limits = {
        name: value
        for limit in field.metadata
        for name in ("ge", "gt", "le", "lt")
        if (value := getattr(limit, name, None)) is not None
    }
    if limits:
        return _limits_in_words(limits)
    if typing.get_origin(kind) is Literal:
        return f"one of {', '.join(map(str, typing.get_args(kind)))}"
    if typing.get_origin(kind) is tuple:
        return 'a list, such as ["one", "two"]'
    words = {"int": "a whole number", "float": "a number", "bool": "true or false", "str": "text", "Path": "a path"}
    return words.get(getattr(kind, "__name__", ""), str(kind))


def _limits_in_words(limits: Mapping[str, float]) -> str:
    low, over = limits.get("gt", limits.get("ge")), "gt" in limits
    high, under = limits.get("lt", limits.get("le")), "lt" in limits
    if low is None:
        return f"below {high:g}" if under else f"at most {high:g}"
    if high is not None and not over and not under:
        return f"{low:g} to {high:g}"
    least = f"{low:g} or more" if not over else f"more than {low:g}" if low else "a positive number"
    if high is None:
        return least
    return f"{least}, below {high:g}" if under else f"{least}, at most {high:g}"

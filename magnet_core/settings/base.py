"""The base of all settings: a frozen pydantic model whose faults are one line, with limits in words.

In: nested plain values, as a TOML file or JSON holds them. Out: a model; and back with `plain`.
"""

from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Self

from pydantic import BaseModel, ConfigDict, ValidationError, model_validator
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails, PydanticCustomError

from magnet_core.errors import MagnetError
from magnet_core.registry import near_names
from magnet_core.settings.words import in_words

Source = Callable[[str], str]  # from the dotted name of a setting to where it was said, such as '--set'

_REFUSAL = "refusal"


class Settings(BaseModel):
    """Settings of one part of the program; `table` is what a recipe calls them, empty for a whole recipe.

    Limits of a field stand in it (`Field(ge=1)`), limits between fields in validators that raise a `refusal`. An
    unknown name is an error that says which names are near.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)  # as JSON has numbers
    table: ClassVar[str] = ""

    @model_validator(mode="before")
    @classmethod
    def _texts_can_be_written(cls, values: Any) -> Any:
        """Refuse text that no file name and no file of UTF-8 can hold, such as bytes that the system could not read."""
        for name, value in values.items() if isinstance(values, Mapping) else ():
            for text in map(str, value if isinstance(value, list | tuple) else [value]):
                if "\0" in text or not _is_unicode(text):
                    expected = "text of Unicode without NUL"
                    raise refusal(name, expected=expected, found=ascii(text), remedy="change the setting")
        return values

    def __init__(self, **values: Any) -> None:
        try:
            self.__pydantic_validator__.validate_python(values, self_instance=self)
        except ValidationError as error:
            raise _in_one_line(error, type(self), where="") from error

    __init__.__pydantic_base_init__ = True  # type: ignore[attr-defined]  # nested settings are validated as fields are

    @classmethod
    def build(cls, values: Mapping[str, Any], *, where: str | Source) -> Self:
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
            if isinstance(before, Settings) and isinstance(value, Mapping):
                values[name] = before.changed(**value)
            else:
                values[name] = value
        return type(self)(**values)

    def plain(self) -> dict[str, Any]:
        """Return nested tables of JSON values, the inverse of `build`."""
        return self.model_dump(mode="json")


def refusal(*names: str, expected: str, found: object, remedy: str = "change one of them") -> PydanticCustomError:
    """Make the error that a validator raises; `names` are the fields it is about, none where it is a field's own."""
    said = {"names": names, "expected": expected, "found": found, "remedy": remedy}
    return PydanticCustomError(_REFUSAL, "{expected}", said)


def settings_of(field: FieldInfo) -> type[Settings] | None:
    """Return the settings class of a field that holds a table; None where the field holds a single value."""
    kind = field.annotation
    return kind if isinstance(kind, type) and issubclass(kind, Settings) else None


def _is_unicode(text: str) -> bool:
    return not any("\ud800" <= each <= "\udfff" for each in text)


def _in_one_line(error: ValidationError, kind: type[Settings], *, where: str | Source) -> MagnetError:
    """Return the first fault in the project's own words."""
    fault = error.errors(include_url=False)[0]
    parts = [str(part) for part in fault["loc"]]
    if fault["type"] == _REFUSAL:
        said = fault["ctx"]
        places = [_dotted(kind, [*parts, name]) for name in said["names"]] or [_dotted(kind, parts)]
        at = _at(where, places[0], said_of=places)
        return MagnetError(at, expected=said["expected"], found=str(said["found"]), remedy=said["remedy"])
    if fault["type"] == "extra_forbidden":
        *parents, name = parts
        at = _at(where, _dotted(kind, parents), said_of=[_dotted(kind, parts)])
        valid_names = _known_names(kind, parents)
        return MagnetError(at, expected="a known setting", found=f"'{name}'", remedy=near_names(name, valid_names))
    fields = _fields_along(kind, parts)
    return _of_a_field(fault, fields[-1], _dotted(kind, parts[: len(fields)]), where)


def _of_a_field(fault: ErrorDetails, field: FieldInfo, place: str, where: str | Source) -> MagnetError:
    value = fault["input"]
    if inner := settings_of(field):
        names = ", ".join(f"{place}.{name}" for name in inner.model_fields)
        found = f"{place}={value}"
        return MagnetError(_at(where, place), expected=f"settings of '{place}'", found=found, remedy=f"set {names}")
    found = repr(value) if isinstance(value, str) else str(value)
    return MagnetError(
        _at(where, place), expected=in_words(field, fault["type"]), found=found, remedy="change the setting"
    )


def _dotted(kind: type[Settings], parts: list[str]) -> str:
    return ".".join([kind.table] * bool(kind.table) + parts)


def _at(where: str | Source, place: str, *, said_of: list[str] | None = None) -> str:
    """Name a setting with its source, that of the first setting in `said_of` that somebody said."""
    source = where if isinstance(where, str) else next(filter(None, map(where, said_of or [place])), "")
    return ": ".join(part for part in (source, place) if part) or "settings"


def _fields_along(kind: type[Settings], parts: list[str]) -> list[FieldInfo]:
    """Return the fields that the dotted name runs through, up to the first part that is no field."""
    fields: list[FieldInfo] = []
    owner: type[Settings] | None = kind
    for part in parts:
        if owner is None or part not in owner.model_fields:
            break
        fields.append(owner.model_fields[part])
        owner = settings_of(fields[-1])
    return fields


def _known_names(kind: type[Settings], parents: list[str]) -> list[str]:
    fields = _fields_along(kind, parents)
    return list(((settings_of(fields[-1]) if fields else None) or kind).model_fields)

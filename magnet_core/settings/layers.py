"""How settings add up: defaults, a recipe, options of the command line, `--set` — each over the one before.

In: nested tables, each with the name of its source. Out: one nested table, and for each setting who said it last, so
that an error names the file or the option in which it is to be mended.
"""

import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

from magnet_core.errors import MagnetError
from magnet_core.settings.base import flat


class Layers:
    """Nested settings from several sources, later ones over earlier ones."""

    def __init__(self) -> None:
        self.values: dict[str, Any] = {}
        self._sources: dict[str, str] = {}

    def add(self, values: Mapping[str, Any], *, source: str) -> Self:
        """Lay nested settings over what is there."""
        self.values = merged(self.values, values)
        self._sources |= dict.fromkeys(flat(values), source)
        return self

    def add_recipe(self, path: Path | None) -> Self:
        """Lay a TOML file over what is there; None adds nothing."""
        return self if path is None else self.add(read_toml(path, option="--recipe"), source=str(path))

    def add_options(self, options: Mapping[str, tuple[str, Any]]) -> Self:
        """Lay options of a command line over what is there: dotted name -> (option, value); None was not given."""
        for name, (option, value) in options.items():
            if value is not None:
                plain = str(value) if isinstance(value, Path) else value
                self.add(nested({name: plain}, where=option), source=option)
        return self

    def add_assignments(self, assignments: Sequence[str] | None) -> Self:
        """Lay `a.b=c` settings of `--set` over what is there; a value is read as TOML has it, else as text."""
        for assignment in assignments or ():
            name, equals, text = assignment.partition("=")
            if not equals:
                raise MagnetError(
                    "--set", expected="key=value, such as optim.lr=1e-3", found=f"'{assignment}'", remedy="add '='"
                )
            self.add(nested({name.strip(): _value(text)}, where="--set"), source="--set")
        return self

    def source(self, name: str) -> str:
        """Who said a setting, or the first of a table, last; 'defaults' where nobody did."""
        above = ".".join(name.split(".")[:-1])
        for known in (name, above):
            if known in self._sources:
                return self._sources[known]
        below = [source for key, source in self._sources.items() if key.startswith(f"{name}.")]
        return below[-1] if below else "defaults"


def read_toml(path: Path, *, option: str) -> dict[str, Any]:
    """Read a TOML file that an option names."""
    if not path.is_file():
        raise MagnetError(option, expected="a TOML file", found=f"no file {path}", remedy="see recipes/")
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise MagnetError(path, expected="TOML", found=str(error), remedy="mend the file") from error


def merged(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """Merge nested tables; a value of `above` wins."""
    result = dict(below)
    for key, value in above.items():
        both = isinstance(value, Mapping) and isinstance(result.get(key), Mapping)
        result[key] = merged(result[key], value) if both else value
    return result


def nested(values: Mapping[str, Any], *, where: str) -> dict[str, Any]:
    """Dotted names, at every depth, as nested tables; one that is given twice is an error."""
    result: dict[str, Any] = {}
    for name, value in values.items():
        inner = nested(value, where=where) if isinstance(value, Mapping) else value
        for key in reversed(name.split(".")):
            inner = {key: inner}
        result = _joined(result, inner, where=where)
    return result


def _joined(one: Mapping[str, Any], other: Mapping[str, Any], *, where: str) -> dict[str, Any]:
    result = dict(one)
    for key, value in other.items():
        if key in one and not (isinstance(one[key], Mapping) and isinstance(value, Mapping)):
            raise MagnetError(where, expected=f"'{key}' once", found="it twice", remedy="leave one of them out")
        result[key] = _joined(one[key], value, where=where) if key in one else value
    return result


def _value(text: str) -> Any:
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text.strip()

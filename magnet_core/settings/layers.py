"""How settings add up: what a protocol brings, a recipe, options of the command line, `--set`, over the defaults.

In: nested tables, each with the name of its source. Out: one nested table, and for each setting who said it last, so
that an error names the file or the option in which it is to be mended.
"""

import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

from magnet_core.errors import MagnetError
from magnet_core.settings.tables import flat, merged, nested
from magnet_core.settings.toml_files import parse_toml, read_toml

Options = Mapping[str, tuple[str, Any]]  # dotted name of a setting -> the option, and what it was given


class Layers:
    """Nested settings from several sources, later ones over earlier ones."""

    def __init__(self) -> None:
        self.values: dict[str, Any] = {}
        self._sources: dict[str, str] = {}

    def add(self, values: Mapping[str, Any], *, source: str) -> Self:
        """Add nested settings, which win over earlier ones; a table where a single value stands is an error."""
        if name := _table_over_value(self.values, values):
            expected, found = f"a table '{name}', as {source} has settings of it", "a single value"
            raise MagnetError(self.source(name), expected=expected, found=found, remedy="set one of the two")
        self.values = merged(self.values, values)
        self._sources |= dict.fromkeys(flat(values), source)
        return self

    def over(self, values: Mapping[str, Any], *, source: str) -> "Layers":
        """Return new layers, these and nested settings over them."""
        new = Layers()
        new.values, new._sources = self.values, dict(self._sources)
        return new.add(values, source=source)

    def add_recipe(self, path: Path | None) -> Self:
        """Add the settings of a TOML file, which win over earlier ones; None adds nothing."""
        return self if path is None else self.add(read_toml(path, option="--recipe"), source=str(path))

    def add_options(self, options: Options) -> Self:
        """Add options of a command line by dotted name as (option, value); None is an option that was not given."""
        for name, (option, value) in options.items():
            if value is not None:
                plain = str(value) if isinstance(value, Path) else value
                self.add(nested({name: plain}, where=option), source=option)
        return self

    def add_assignments(self, assignments: Sequence[str] | None) -> Self:
        """Add `a.b=c` settings of `--set`; a value is read as TOML where it is TOML, and as text otherwise."""
        for assignment in assignments or ():
            name, equals, text = assignment.partition("=")
            if not equals:
                raise MagnetError(
                    "--set", expected="key=value, such as optim.lr=1e-3", found=f"'{assignment}'", remedy="add '='"
                )
            value = _value(text, where=f"--set: {name.strip()}")
            self.add(nested({name.strip(): value}, where="--set"), source="--set")
        return self

    def add_given(self, recipe: Path | None, options: Options | None, assignments: Sequence[str] | None) -> Self:
        """Add what a command was given: a recipe, then its options, then `--set`; the later ones win."""
        return self.add_recipe(recipe).add_options(options or {}).add_assignments(assignments)

    def table(self, name: str) -> dict[str, Any]:
        """Return the settings of a table, empty where no source gives any; a single value in its place is an error."""
        values = self.values.get(name, {})
        if not isinstance(values, Mapping):
            where, found = f"{self.source(name)}: {name}", f"{name}={values}"
            raise MagnetError(where, expected=f"a table '{name}'", found=found, remedy=f"write [{name}]")
        return dict(values)

    def source(self, name: str) -> str:
        """Name the source that last gave a setting, a table around it, or a setting inside it; empty if none did."""
        parts = name.split(".")
        around = [".".join(parts[:count]) for count in range(len(parts), 0, -1)]
        inside = [setting for setting in reversed(self._sources) if setting.startswith(f"{name}.")]
        return next((self._sources[setting] for setting in (*around, *inside) if setting in self._sources), "")


def _table_over_value(below: Mapping[str, Any], above: Mapping[str, Any], prefix: str = "") -> str:
    """Return the dotted name of the first setting that is a value below and a table above; empty without one."""
    for key, value in above.items():
        if isinstance(value, Mapping) and key in below:
            name = f"{prefix}{key}"
            inner = below[key]
            if offender := _table_over_value(inner, value, f"{name}.") if isinstance(inner, Mapping) else name:
                return offender
    return ""


def _value(text: str, *, where: str) -> Any:
    """Return what a text says as TOML; one that is none, or says more than one value, is that text."""
    try:
        tables = parse_toml(f"value = {text}", where=where, remedy="write less")
    except tomllib.TOMLDecodeError:
        return text.strip()
    return tables["value"] if len(tables) == 1 else text.strip()

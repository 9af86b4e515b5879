"""A sweep as it is asked for: the settings that all trials share, the space, and how it is searched.

In: a sweep file (TOML), which may name a recipe, and settings from the command line over it. Out: a `Sweep`, every end
and choice of whose space a configuration takes. Layers, the last on top: recipe, frozen encoder, `[settings]`, command
line, a trial's values.
"""

import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from magnet_core.errors import MagnetError
from magnet_core.registry import near_names
from magnet_core.settings import Layers, Options, holds, merged, nested, read_toml
from train.settings.fit import FitConfig, build_fit
from train.settings.search import SearchConfig
from train.sweep.space import Dimension, Value, parse_space

TABLES = ("recipe", "settings", "space", "search")
MAX_COMBINATIONS = 256  # tried for a value that a configuration refuses, before the value is refused
DEFAULTS = {"name": "sweep", "encoder": {"mode": "frozen"}}


@dataclass(frozen=True)
class Sweep:
    """What a sweep is.

    base    a configuration; what it says of settings in the space is not used
    source  the sweep file, as errors name it
    """

    base: FitConfig
    space: Mapping[str, Dimension]
    search: SearchConfig
    source: str

    @property
    def folder(self) -> Path:
        """Where the sweep lies."""
        return self.base.runs / self.base.run_name

    def config(self, values: Mapping[str, Value]) -> FitConfig:
        """The configuration of a trial; raises `MagnetError` if it refuses the combination of values."""
        over = nested(values, where=self.source)
        return FitConfig.build(merged(self.base.plain(), over), where=self.source)

    def described(self) -> dict[str, Any]:
        """All that makes two sweeps the same one, as JSON values."""
        space = {name: {"kind": type(item).__name__.lower(), **asdict(item)} for name, item in self.space.items()}
        for item in space.values():
            if "choices" in item:
                item["choices"] = list(item["choices"])
        return {"settings": self.base.plain(), "space": space, "search": self.search.plain()}


def read_sweep(path: Path, options: Options | None = None, assignments: Sequence[str] = ()) -> Sweep:
    """Read a sweep file; options of the command line lie over its settings, and `a.b=c` ones of `--set` over both."""
    file = Layers().add(_read_tables(path), source=str(path))
    recipe = path.parent / file.values["recipe"] if "recipe" in file.values else None
    fixed = nested(file.table("settings"), where=f"{path}: settings")
    space = parse_space(file.table("space"), where=f"{path}: space")
    _refuse_twice(path, fixed, space, options or {})
    search = SearchConfig.build(file.table("search"), where=str(path))
    layers = Layers().add_recipe(recipe).add(DEFAULTS, source="train sweep").add(fixed, source=f"{path}: settings")
    layers.add_options(options or {}).add_assignments(assignments)
    return Sweep(check_values(layers, space, source=str(path)), space, search, str(path))


def check_values(layers: Layers, space: Mapping[str, Dimension], *, source: str) -> FitConfig:
    """Return a configuration of the space; a value that it refuses beside whatever others is an error.

    A combination may still be refused: that trial is then left out.
    """
    first = None
    for name, dimension in space.items():
        others = {other: item.ends for other, item in space.items() if other != name}
        for value in dimension.ends:
            combinations = itertools.product(*others.values())
            trials = ({name: value, **dict(zip(others, rest, strict=True))} for rest in combinations)
            config = _first_accepted(layers, itertools.islice(trials, MAX_COMBINATIONS), source=f"{source}: space")
            first = first or config
    assert first is not None  # a space is never empty
    return first


def _first_accepted(layers: Layers, trials: Iterable[Mapping[str, Value]], *, source: str) -> FitConfig:
    refusal: MagnetError | None = None
    for trial in trials:
        try:
            return build_fit(layers.over(nested(trial, where=source), source=source))
        except MagnetError as error:
            refusal = refusal or error
    assert refusal is not None
    raise refusal


def _read_tables(path: Path) -> dict[str, Any]:
    tables = read_toml(path, option="sweep")
    for key in tables:
        if key not in TABLES:
            raise MagnetError(path, expected="a known table", found=f"'{key}'", remedy=near_names(key, TABLES))
    if not isinstance(tables.get("recipe", ""), str):
        raise MagnetError(path, expected="a path as recipe", found=repr(tables["recipe"]), remedy="change it")
    return tables


def _refuse_twice(path: Path, fixed: Mapping[str, Any], space: Mapping[str, Dimension], options: Options) -> None:
    for name in space:
        if holds(fixed, name):
            raise MagnetError(
                path, expected=f"'{name}' fixed or searched", found="both", remedy="leave one of them out"
            )
    option, mode = options.get("encoder.mode", ("", None))
    if mode is not None and ("encoder.mode" in space or holds(fixed, "encoder.mode")):
        raise MagnetError(option, expected=f"{option} or encoder.mode", found="both", remedy="leave one of them out")

"""A sweep as it is asked for: the settings that all trials share, the space, and how it is searched.

In: a sweep file (TOML), which may name a recipe, and settings from the command line over it. Out: a `Sweep`, every end
and choice of whose space a configuration takes. Layers, the last on top: recipe, frozen encoder, `[settings]`, command
line, a trial's values.
"""

import itertools
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from magnet_core.errors import MagnetError
from magnet_core.registry import near_names
from train.settings.build import as_plain, build, read_values
from train.settings.fit import FitConfig, load_config
from train.sweep.space import Dimension, Value, merged, nested, parse_space

TABLES = ("recipe", "settings", "space", "search")
MAX_COMBINATIONS = 256  # tried for a value that a configuration refuses, before the value is refused
DEFAULTS = {"name": "sweep", "encoder": {"mode": "frozen"}}


@dataclass(frozen=True)
class SearchConfig:
    """How the space is searched.

    sampler        tpe (Bergstra et al. 2011) or random
    pruner         stops trials that lag: median of the others at the same epoch, asha (Li et al. 2020), or none
    seed           of the sampler; the trials' own seed is the setting `seed`
    startup        random trials before tpe begins, and whole trials before median compares
    warmup_epochs  epochs that every trial is given
    reduction      of asha: one in so many goes on from each rung, and the rungs lie so many times apart
    """

    sampler: Literal["tpe", "random"] = "tpe"
    pruner: Literal["median", "asha", "none"] = "median"
    seed: int = 0
    startup: int = 8
    warmup_epochs: int = 1
    reduction: int = 3

    def __post_init__(self) -> None:
        for name, least in {"seed": 0, "startup": 1, "warmup_epochs": 1, "reduction": 2}.items():
            if (value := getattr(self, name)) < least:
                raise MagnetError(
                    f"search.{name}", expected=f"{least} or more", found=str(value), remedy="change the setting"
                )


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
        return build(FitConfig, merged(as_plain(self.base), over), where=self.source)

    def described(self) -> dict[str, Any]:
        """All that makes two sweeps the same one, as JSON values."""
        space = {name: {"kind": type(item).__name__.lower(), **asdict(item)} for name, item in self.space.items()}
        for item in space.values():
            if "choices" in item:
                item["choices"] = list(item["choices"])
        return {"settings": as_plain(self.base), "space": space, "search": asdict(self.search)}


def read_sweep(path: Path, named: Mapping[str, Any] | None = None, settings: Sequence[str] = ()) -> Sweep:
    """Read a sweep file; `named` are dotted settings of command-line options, `settings` those of `--set`."""
    tables = _read_tables(path)
    recipe = path.parent / tables["recipe"] if "recipe" in tables else None
    fixed = nested(_table(tables, "settings", path), where=f"{path}: settings")
    values = merged(merged(as_plain(load_config(recipe)), DEFAULTS), fixed)
    values = merged(values, nested(named or {}, where="options"))
    values = merged(values, read_values(None, settings)[0])
    space = parse_space(_table(tables, "space", path), where=f"{path}: space")
    _refuse_twice(path, fixed, space, named or {})
    search = build(SearchConfig, _table(tables, "search", path), where=f"{path}: search")
    where = f"{path} or --set" if settings else str(path)
    return Sweep(check_values(values, space, where=where), space, search, where)


def check_values(values: Mapping[str, Any], space: Mapping[str, Dimension], *, where: str) -> FitConfig:
    """Return a configuration of the space; a value that it refuses beside whatever others is an error.

    A combination may still be refused: that trial is then left out.
    """
    first = None
    for name, dimension in space.items():
        others = {other: item.ends for other, item in space.items() if other != name}
        for value in dimension.ends:
            combinations = itertools.product(*others.values())
            trials = ({name: value, **dict(zip(others, rest, strict=True))} for rest in combinations)
            config = _first_accepted(values, itertools.islice(trials, MAX_COMBINATIONS), where=where)
            first = first or config
    assert first is not None  # a space is never empty
    return first


def _first_accepted(values: Mapping[str, Any], trials: Any, *, where: str) -> FitConfig:
    refusal: MagnetError | None = None
    for trial in trials:
        try:
            return build(FitConfig, merged(values, nested(trial, where=where)), where=where)
        except MagnetError as error:
            refusal = refusal or error
    assert refusal is not None
    raise refusal


def _read_tables(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise MagnetError(
            "sweep", expected="a TOML file", found=f"no file {path}", remedy="recipes/sweep.toml is one to start from"
        )
    try:
        tables = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise MagnetError(path, expected="TOML", found=str(error), remedy="mend the file") from error
    for key in tables:
        if key not in TABLES:
            raise MagnetError(path, expected="a known table", found=f"'{key}'", remedy=near_names(key, TABLES))
    if not isinstance(tables.get("recipe", ""), str):
        raise MagnetError(path, expected="a path as recipe", found=repr(tables["recipe"]), remedy="change it")
    return tables


def _table(tables: Mapping[str, Any], name: str, path: Path) -> Mapping[str, Any]:
    table = tables.get(name, {})
    if not isinstance(table, Mapping):
        raise MagnetError(path, expected=f"a table '{name}'", found=f"{name} = {table!r}", remedy=f"write [{name}]")
    return table


def _refuse_twice(
    path: Path, fixed: Mapping[str, Any], space: Mapping[str, Dimension], named: Mapping[str, Any]
) -> None:
    for name in space:
        if _holds(fixed, name):
            raise MagnetError(
                path, expected=f"'{name}' fixed or searched", found="both", remedy="leave one of them out"
            )
    if "encoder.mode" in named and ("encoder.mode" in space or _holds(fixed, "encoder.mode")):
        raise MagnetError("--bins", expected="--bins or encoder.mode", found="both", remedy="leave one of them out")


def _holds(table: Mapping[str, Any], name: str) -> bool:
    first, _, rest = name.partition(".")
    inner = table.get(first)
    return _holds(inner, rest) if rest and isinstance(inner, Mapping) else first in table

"""Settings of a study: those of `train fit`, which hold for all systems, and the rivals' own.

In: a recipe, whose table `[rivals]` is read here and passed over by `train fit`, and `--set` settings over it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from magnet_core.registry import look_up
from train.settings.build import build, read_values
from train.settings.fit import FitConfig, build_fit
from train.studies.protocols import PROTOCOLS
from train.systems.table import RivalsConfig


@dataclass(frozen=True)
class StudyConfig:
    """One study.

    fit       data, folds and seed of every system; the rest is MagNet's
    rivals    hyper-parameters of the rivals
    protocol  a name of `PROTOCOLS`
    """

    fit: FitConfig = field(default_factory=FitConfig)
    rivals: RivalsConfig = field(default_factory=RivalsConfig)
    protocol: str = "paper"


def load_study_config(recipe: Path | None, settings: Sequence[str] = (), *, protocol: str = "paper") -> StudyConfig:
    """Read a recipe (TOML, or none for the defaults) over what the protocol brings, and `a.b=c` settings over both.

    Settings of the rivals are written `rivals.egn.lr=1e-3`.
    """
    brought = look_up(PROTOCOLS, protocol, where="--protocol").values
    values, where = read_values(recipe, settings)
    values = _over(brought, values)
    rivals = build(RivalsConfig, values.get("rivals", {}), where=f"{where}: rivals")
    return StudyConfig(build_fit(values, where=where), rivals, protocol)


def _over(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """Merge nested tables; a value of `above` wins."""
    merged = dict(below)
    for key, value in above.items():
        both = isinstance(value, Mapping) and isinstance(merged.get(key), Mapping)
        merged[key] = _over(merged[key], value) if both else value
    return merged

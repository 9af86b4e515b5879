"""Settings of a study: those of `train fit`, which hold for all systems, and the rivals' own.

In: a recipe, whose table `[rivals]` is read here and passed over by `train fit`, and `--set` settings over it.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from train.baselines.table import RivalsConfig
from train.config import FitConfig, build, build_fit, read_values


@dataclass(frozen=True)
class StudyConfig:
    """One study.

    fit      data, folds and seed of every system; the rest is MagNet's
    rivals   hyper-parameters of the rivals
    """

    fit: FitConfig = field(default_factory=FitConfig)
    rivals: RivalsConfig = field(default_factory=RivalsConfig)


def load_study_config(recipe: Path | None, settings: Sequence[str] = ()) -> StudyConfig:
    """Read a recipe (TOML, or none for the defaults) and apply `a.b=c` settings, `rivals.egn.lr=1e-3` among them."""
    values, where = read_values(recipe, settings)
    rivals = build(RivalsConfig, values.get("rivals", {}), where=f"{where}: rivals")
    return StudyConfig(build_fit(values, where=where), rivals)

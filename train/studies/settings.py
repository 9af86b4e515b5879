"""Settings of a study: those of `train fit`, which hold for all systems, and the rivals' own.

In: a recipe, and options of a command, which win. The recipe's table `[rivals]` is read here; `train fit` ignores it.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

from pydantic import Field, SerializeAsAny, field_validator

from magnet_core.registry import look_up
from magnet_core.settings import Layers, Options, Settings
from train.settings.fit import FitConfig, build_fit
from train.settings.protocols import PROTOCOLS
from train.systems.table import RivalsConfig, rivals_config, rivals_kind


class StudyConfig(Settings):
    """One study.

    fit       data, folds and seed of every system; the rest is MagNet's
    rivals    hyper-parameters of the rivals
    protocol  a name of `PROTOCOLS`
    """

    fit: FitConfig = FitConfig()
    rivals: SerializeAsAny[RivalsConfig] = Field(default_factory=rivals_config)
    protocol: str = "paper"

    @field_validator("rivals", mode="before")
    @classmethod
    def _of_the_table(cls, rivals: object) -> object:
        return rivals_config(**rivals) if isinstance(rivals, Mapping) else rivals


def load_study_config(
    recipe: Path | None = None,
    assignments: Sequence[str] = (),
    *,
    options: Options | None = None,
    protocol: str = "paper",
) -> StudyConfig:
    """Build a study's settings: from the protocol, then a recipe, options and `a.b=c` settings; later ones win.

    Settings of the rivals are written `rivals.egn.lr=1e-3`.
    """
    brought = look_up(PROTOCOLS, protocol, where="--protocol").values
    layers = Layers().add(brought, source=f"--protocol {protocol}").add_given(recipe, options, assignments)
    rivals = rivals_kind().build(layers.table("rivals"), where=layers.source)
    return StudyConfig(fit=build_fit(layers), rivals=rivals, protocol=protocol)

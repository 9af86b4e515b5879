"""The table of compared systems: what each is called, where its class lies, and the settings of those that have any.

In: a name. Out: a title, settings, or a `System` that is ready to be fitted. To add one, write its module and its row.

Classes stand by name and are imported when they are built, so that the table is there at once: help, `--systems` and
the recipe's tables `[rivals.…]` are read off it. MagNet has the settings of a whole fit; `train.pipeline` builds it.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import create_model

from magnet_core.registry import look_up
from magnet_core.settings import Settings
from train.settings.rivals import (
    BLEEPConfig,
    EGNConfig,
    His2STConfig,
    HisToGeneConfig,
    RivalSettings,
    STNetConfig,
    TriplexConfig,
)

if TYPE_CHECKING:  # both bring torch
    from train.learning.setting import Setting
    from train.systems.base import System

MAGNET, NOISE_CEILING = "magnet", "noise_ceiling"
CEILING_TITLE = "noise ceiling (upper bound)"


@dataclass(frozen=True)
class SystemRow:
    """One system: its name in tables and pictures, `module:Class`, and the kind of its own settings.

    A class with settings is called with them and a `Setting`, one without with nothing. `reads_pixels` is set for one
    that reads them where encoders are frozen, too. `version` is raised when equal settings no longer give equal cells.
    """

    title: str
    built_by: str
    settings: type[Settings] | None = None
    reads_pixels: bool = False
    version: int = 1


# In the order of tables: the paper's Table 1, then the plain baselines, which learn in no epochs.
SYSTEMS: dict[str, SystemRow] = {
    "st_net": SystemRow("ST-Net", "train.systems.rivals.st_net:STNet", STNetConfig),
    "egn": SystemRow("EGN", "train.systems.rivals.egn:EGN", EGNConfig),
    "histogene": SystemRow("HisToGene", "train.systems.rivals.histogene:HisToGene", HisToGeneConfig),
    "bleep": SystemRow("BLEEP", "train.systems.rivals.bleep:BLEEP", BLEEPConfig),
    "his2st": SystemRow("His2ST", "train.systems.rivals.his2st:His2ST", His2STConfig),
    "triplex": SystemRow("TRIPLEX", "train.systems.rivals.triplex:Triplex", TriplexConfig),
    MAGNET: SystemRow("MagNet", "train.systems.magnet:MagNetSystem"),
    "gene_mean": SystemRow("gene mean", "train.systems.plain.gene_mean:GeneMean"),
    "colour_ridge": SystemRow("colour ridge", "train.systems.plain.ridge:ColourRidge", reads_pixels=True),
    "feature_ridge": SystemRow("PCA-256 + ridge on features", "train.systems.plain.ridge:FeatureRidge"),
    "hest_ridge": SystemRow("PCA-256 + ridge, HEST's", "train.systems.plain.hest_ridge:HestRidge", version=2),
}


class RivalsConfig(Settings):
    """The settings of all systems that have their own, each under its name; made by `rivals_config`."""

    table: ClassVar[str] = "rivals"

    if TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any: ...

    def __reduce__(self) -> tuple[Callable[..., "RivalsConfig"], tuple[dict[str, Any]]]:
        """Its class is made of the table, in the process that reads it back, too."""
        return _read_back, ({name: getattr(self, name) for name in type(self).model_fields},)


def title_of(name: str) -> str:
    """What tables, bars and messages call a system, or the noise ceiling."""
    return CEILING_TITLE if name == NOISE_CEILING else look_up(SYSTEMS, name, where="--systems").title


def version_of(name: str) -> int:
    """The version of a system, or of the noise ceiling."""
    return 1 if name == NOISE_CEILING else look_up(SYSTEMS, name, where="--systems").version


def plain_systems() -> tuple[str, ...]:
    """Names of the plain baselines: systems without settings."""
    return tuple(name for name, row in SYSTEMS.items() if row.settings is None and name != MAGNET)


def learns_in_epochs(name: str) -> bool:
    """Whether a system learns by the one loop, so that an epoch of it may be chosen."""
    kind = look_up(SYSTEMS, name, where="--systems").settings
    return name == MAGNET or (kind is not None and issubclass(kind, RivalSettings))


def rivals_kind() -> type[RivalsConfig]:
    """The kind of `RivalsConfig` that the table asks for as it stands."""
    return _kind_of(tuple((name, row.settings) for name, row in SYSTEMS.items() if row.settings is not None))


def rivals_config(**own: Settings | Mapping[str, Any]) -> RivalsConfig:
    """The settings of all rivals; those that are not given are as published."""
    return rivals_kind()(**own)


def _read_back(own: dict[str, Any]) -> RivalsConfig:
    return rivals_config(**own)


def build_rival(name: str, rivals: RivalsConfig, setting: "Setting") -> "System":
    """Build a rival or a plain baseline by its name."""
    row = look_up(SYSTEMS, name, where="--systems")
    module, _, class_name = row.built_by.partition(":")
    build: Callable[..., System] = getattr(import_module(module), class_name)
    return build() if row.settings is None else build(getattr(rivals, name), setting)


@cache
def _kind_of(kinds: tuple[tuple[str, type[Settings]], ...]) -> type[RivalsConfig]:
    """One class for one set of fields, so that equal settings are equal."""
    fields: dict[str, Any] = {name: (kind, kind.build({}, where=name)) for name, kind in kinds}
    return create_model("RivalsConfig", __base__=RivalsConfig, **fields)

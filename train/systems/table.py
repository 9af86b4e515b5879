"""The table of compared systems: their names, how they are built, and the settings of those that have any.

In: a name, `RivalsConfig`, `Setting`. Out: a `System`. MagNet itself is built in `train.studies.cell`.
"""

from collections.abc import Callable

from magnet_core.registry import look_up
from train.learning.setting import Setting
from train.settings.rivals import RivalsConfig
from train.systems.base import System
from train.systems.plain.gene_mean import GeneMean
from train.systems.plain.hest_ridge import HestRidge
from train.systems.plain.ridge import ColourRidge, FeatureRidge
from train.systems.rivals.bleep import BLEEP
from train.systems.rivals.egn import EGN
from train.systems.rivals.his2st import His2ST
from train.systems.rivals.histogene import HisToGene
from train.systems.rivals.st_net import STNet
from train.systems.rivals.triplex import Triplex

# In the order of the paper's Table 1, then the plain ones.
RIVALS: dict[str, Callable[[RivalsConfig, Setting], System]] = {
    "st_net": lambda rivals, setting: STNet(rivals.st_net, setting),
    "egn": lambda rivals, setting: EGN(rivals.egn, setting),
    "histogene": lambda rivals, setting: HisToGene(rivals.histogene, setting),
    "bleep": lambda rivals, setting: BLEEP(rivals.bleep, setting),
    "his2st": lambda rivals, setting: His2ST(rivals.his2st, setting),
    "triplex": lambda rivals, setting: Triplex(rivals.triplex, setting),
}
PLAIN: dict[str, Callable[[], System]] = {
    "gene_mean": GeneMean,
    "colour_ridge": ColourRidge,
    "feature_ridge": FeatureRidge,
    "hest_ridge": HestRidge,
}


def build_rival(name: str, rivals: RivalsConfig, setting: Setting) -> System:
    """Build a rival or a plain baseline by its name."""
    if name in PLAIN:
        return PLAIN[name]()
    return look_up(RIVALS, name, where="--systems")(rivals, setting)

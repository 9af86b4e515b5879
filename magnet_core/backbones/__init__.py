"""Image encoders: a table of names, their weights, and one wrapper that turns patches into features.

Names are checked without torch, which takes seconds to import: what needs it is imported when it is first asked for.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from magnet_core.backbones.spec import BackboneSpec
from magnet_core.backbones.table import BACKBONES

if TYPE_CHECKING:
    from magnet_core.backbones.encoder import Encoder, Features, build_encoder, with_class_token
    from magnet_core.backbones.find import find_backbone
    from magnet_core.backbones.tuning import TuningConfig, merge, tune

__all__ = [
    "BACKBONES",
    "BackboneSpec",
    "Encoder",
    "Features",
    "TuningConfig",
    "build_encoder",
    "find_backbone",
    "merge",
    "tune",
    "with_class_token",
]

_HOMES = {
    "encoder": ("Encoder", "Features", "build_encoder", "with_class_token"),
    "find": ("find_backbone",),
    "tuning": ("TuningConfig", "merge", "tune"),
}


def __getattr__(name: str) -> Any:
    for module, names in _HOMES.items():
        if name in names:
            return getattr(import_module(f"{__name__}.{module}"), name)
    raise AttributeError(f"module '{__name__}' has no attribute '{name}'")

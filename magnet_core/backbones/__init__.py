"""Image encoders: a table of names, their weights, and one wrapper that turns patches into features."""

from magnet_core.backbones.encoder import Encoder, Features, build_encoder, with_class_token
from magnet_core.backbones.find import find_backbone
from magnet_core.backbones.spec import BackboneSpec
from magnet_core.backbones.table import BACKBONES
from magnet_core.backbones.tuning import merge, tune

__all__ = [
    "BACKBONES",
    "BackboneSpec",
    "Encoder",
    "Features",
    "build_encoder",
    "find_backbone",
    "merge",
    "tune",
    "with_class_token",
]

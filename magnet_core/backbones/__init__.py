"""Image encoders: a table of names, their weights, and one wrapper that turns patches into features.

Only the table is named here: what needs torch is imported from the modules, and names are checked without it.
"""

from magnet_core.backbones.spec import BackboneSpec
from magnet_core.backbones.table import BACKBONES

__all__ = ["BACKBONES", "BackboneSpec"]

"""Settings of both stages: pydantic models with their limits in the fields, and how recipe, options and `--set` add up.

Imports nothing that takes long, so that a mistake in a setting is told of within a second.
"""

from magnet_core.settings.base import Settings, differing, without
from magnet_core.settings.layers import Layers, merged, nested, read_toml

__all__ = ["Layers", "Settings", "differing", "merged", "nested", "read_toml", "without"]

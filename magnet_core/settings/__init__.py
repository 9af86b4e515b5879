"""Settings of both stages: pydantic models with their limits in the fields, and how recipe, options and `--set` add up.

Imports nothing that takes long, so that a mistake in a setting is told of within a second.
"""

from magnet_core.settings.base import Settings, refusal, settings_of
from magnet_core.settings.layers import Layers, Options
from magnet_core.settings.tables import differing, flat, holds, merged, nested, without
from magnet_core.settings.toml_files import read_toml

__all__ = [
    "Layers",
    "Options",
    "Settings",
    "differing",
    "flat",
    "holds",
    "merged",
    "nested",
    "read_toml",
    "refusal",
    "settings_of",
    "without",
]

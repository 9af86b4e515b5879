"""Every size that can be set is bounded, so that an absurd number in a recipe or a record is one line."""

import importlib
from collections.abc import Iterator

from magnet_core.settings import Settings

NO_SIZES = {"seed", "fold", "target"}  # the last is one of a table


def test_every_size_that_can_be_set_has_a_largest_value() -> None:
    for module in ("train.studies.settings", "train.settings.search", "extract.config", "extract.synthetic.config"):
        importlib.import_module(module)
    endless = [
        f"{kind.__name__}.{name}"
        for kind in all_settings(Settings)
        for name, field in kind.model_fields.items()
        if field.annotation in (int, int | None) and not any(hasattr(limit, "le") for limit in field.metadata)
    ]
    assert [name for name in endless if name.partition(".")[2] not in NO_SIZES] == []


def all_settings(kind: type[Settings]) -> Iterator[type[Settings]]:
    """All kinds of settings of the project, those that derive from others too."""
    for below in kind.__subclasses__():
        if below.__module__.partition(".")[0] in {"magnet_core", "extract", "train"}:
            yield below
        yield from all_settings(below)

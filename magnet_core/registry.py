"""Look-up by name in a table, with the near names in the error."""

import difflib
from collections.abc import Iterable, Mapping
from typing import TypeVar

from magnet_core.errors import MagnetError

Entry = TypeVar("Entry")


def near_names(name: str, known: Iterable[str]) -> str:
    """Say which known names come closest to `name`, upper and lower case being the same, else list them all."""
    names = sorted(known)
    folded = difflib.get_close_matches(name.casefold(), {each.casefold() for each in names}, n=3, cutoff=0.5)
    close = [each for match in folded for each in names if each.casefold() == match]
    return f"did you mean {' or '.join(close)}?" if close else f"choose one of: {', '.join(names)}"


def look_up(table: Mapping[str, Entry], name: str, *, where: str) -> Entry:
    """Return `table[name]`; an unknown name is an error that lists the valid ones."""
    if name not in table:
        raise MagnetError(where, expected="a known name", found=f"'{name}'", remedy=near_names(name, table))
    return table[name]

"""Look-up by name in a table, with the near names in the error."""

import difflib
from collections.abc import Iterable, Mapping
from typing import TypeVar

from magnet_core.errors import MagnetError

Entry = TypeVar("Entry")
LISTED = 40  # names in a line


def near_names(name: str, known: Iterable[str]) -> str:
    """Say which known names come closest to `name`, in upper or lower case, else list them, the first of many."""
    names = sorted(known)
    folded = difflib.get_close_matches(name.casefold(), {each.casefold() for each in names}, n=3, cutoff=0.5)
    close = [each for match in folded for each in names if each.casefold() == match]
    if close:
        return f"did you mean {' or '.join(close)}?"
    more = f", … ({len(names):,} in all)" if len(names) > LISTED else ""
    return f"choose one of: {', '.join(names[:LISTED])}{more}"


def look_up(table: Mapping[str, Entry], name: str, *, where: str) -> Entry:
    """Return `table[name]`; an unknown name is an error that lists the valid ones."""
    if name not in table:
        raise MagnetError(where, expected="a known name", found=f"'{name}'", remedy=near_names(name, table))
    return table[name]

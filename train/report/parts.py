"""What a page is made of: sections of blocks, plain values that the template lays out.

In: nothing. Out: the classes that readers of results fill, and numbers as people read them. All text is escaped by the
template; nothing here is HTML.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar

from train.report.figures import Plot


@dataclass(frozen=True)
class Table:
    """Rows of text below headings; the first `texts` columns are words, the others numbers, aligned right.

    best    (row, column) of what is set in bold
    ours    rows that are set off
    folded  shown when it is asked for
    """

    heading: str
    headings: Sequence[str]
    rows: Sequence[Sequence[str]]
    texts: int = 1
    note: str = ""
    best: frozenset[tuple[int, int]] = frozenset()
    ours: frozenset[int] = frozenset()
    folded: bool = False
    kind: ClassVar[str] = "table"


@dataclass(frozen=True)
class Tables:
    """Tables that are set side by side below one heading."""

    heading: str
    tables: Sequence[Table]
    note: str = ""
    kind: ClassVar[str] = "tables"


@dataclass(frozen=True)
class Plots:
    """Figures below one heading."""

    heading: str
    plots: Sequence[Plot]
    note: str = ""
    kind: ClassVar[str] = "plots"


@dataclass(frozen=True)
class Pictures:
    """Images that the page holds itself: (caption, data URI)."""

    heading: str
    images: Sequence[tuple[str, str]]
    note: str = ""
    kind: ClassVar[str] = "pictures"


@dataclass(frozen=True)
class Code:
    """Text of a file, as it stands."""

    heading: str
    text: str
    note: str = ""
    folded: bool = False
    kind: ClassVar[str] = "code"


@dataclass(frozen=True)
class Listing:
    """Lines, one below the other; `alarming` ones are what failed."""

    heading: str
    lines: Sequence[str]
    alarming: bool = False
    note: str = ""
    kind: ClassVar[str] = "listing"


Block = Table | Tables | Plots | Pictures | Code | Listing


@dataclass(frozen=True)
class Section:
    """One result: what it was made of as (term, text), its blocks, and its main rows for the table of all results."""

    title: str
    folder: str
    facts: Sequence[tuple[str, str]]
    blocks: Sequence[Block]
    main: Sequence[Sequence[str]] = field(default=())


def unrepeated(rows: Sequence[Sequence[str]]) -> list[Sequence[str]]:
    """Rows whose first word is left out where it is that of the row above."""
    firsts = [None, *(row[0] for row in rows)]
    return [["" if row[0] == above else row[0], *row[1:]] for above, row in zip(firsts, rows, strict=False)]

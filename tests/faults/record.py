"""What was tried and what failed, row by row, as benchmarks/results/reliability.json keeps it.

lost       the finished result is not that of a run which nothing befell, or finished work is gone
wrong      a value differs from the truth and nothing was said
traceback  an exception that is not ours, a crash, a command that hangs, or an exit code without a meaning
"""

import json
import platform
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from magnet_core.files import write_json

KINDS = ("lost", "wrong", "traceback")
SHOWN = 12  # examples of what failed, which are kept with a row
LONGEST = 400


@dataclass
class Row:
    """One attack on one thing: how often it was tried, and how often it failed in which way, with examples."""

    what: str
    tried: int = 0
    lost: int = 0
    wrong: int = 0
    traceback: int = 0
    examples: list[str] = field(default_factory=list)
    facts: dict[str, Any] = field(default_factory=dict)
    _began: float = field(default_factory=time.monotonic)
    _seconds: float | None = None

    @property
    def failed(self) -> int:
        return self.lost + self.wrong + self.traceback

    def add(self, kind: str | None, example: str) -> None:
        """Count one try, which failed in the way of `kind`, or not at all (None)."""
        self.tried += 1
        if kind is not None:
            self.fail(kind, example)

    def fail(self, kind: str, example: str) -> None:
        """Count one failure."""
        setattr(self, kind, getattr(self, kind) + 1)
        if len(self.examples) < SHOWN:
            self.examples.append(f"{kind}: {' '.join(example.split())}"[:LONGEST])

    def close(self) -> "Row":
        """Stop the row's clock."""
        self._seconds = time.monotonic() - self._began
        return self

    def plain(self) -> dict[str, Any]:
        seconds = time.monotonic() - self._began if self._seconds is None else self._seconds
        counts = {kind: getattr(self, kind) for kind in KINDS}
        return {"what": self.what, "tried": self.tried, "failed": self.failed, **counts, "seconds": round(seconds, 1),
                **self.facts, "examples": self.examples}  # fmt: skip


def write_rows(path: Path, rows: list[Row], *, seed: int) -> None:
    """Put rows into a record, in the place of rows of the same name; the others stay."""
    before = json.loads(path.read_bytes())["rows"] if path.exists() else []
    now = {row.what: row.plain() for row in rows}
    kept = [now.pop(row["what"], row) for row in before]
    content = {
        "python": platform.python_version(),
        "system": f"{sys.platform}, {platform.machine()}",
        "seed": seed,
        "rows": [*kept, *now.values()],
    }
    write_json(path, content)

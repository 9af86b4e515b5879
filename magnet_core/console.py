"""How a command line speaks: bars on stderr, results on stdout, one line on stderr for a user's error, exit code 1."""

import sys
from typing import Any

from tqdm import tqdm

from magnet_core.errors import MagnetError


def run_app(app: Any) -> None:
    """Run a typer app; a `MagnetError` becomes one line and exit code 1, everything else keeps its traceback."""
    try:
        app()
    except MagnetError as error:
        sys.stderr.write(f"error: {error}\n")
        raise SystemExit(1) from None


def progress(*iterable: Any, **options: Any) -> tqdm:
    """Return a tqdm bar that redraws often on a terminal, and writes a line's worth now and then into a job's log."""
    return tqdm(*iterable, mininterval=0.3 if sys.stderr.isatty() else 20.0, dynamic_ncols=True, **options)


def human_bytes(count: float) -> str:
    """Format a byte count as people read it, in binary units."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if abs(count) < 1024:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} TiB"

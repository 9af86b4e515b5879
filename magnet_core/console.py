"""How a command line ends: results on stdout, one line on stderr for a user's error, exit code 1."""

import sys
from typing import Any

from magnet_core.errors import MagnetError


def run_app(app: Any) -> None:
    """Run a typer app; a `MagnetError` becomes one line and exit code 1, everything else keeps its traceback."""
    try:
        app()
    except MagnetError as error:
        sys.stderr.write(f"error: {error}\n")
        raise SystemExit(1) from None


def human_bytes(count: float) -> str:
    """Format a byte count as people read it, in binary units."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if abs(count) < 1024:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} TiB"

"""The record of one `extract run`, kept in the store: `runs/<time>-<process>.json`.

In: what the run did, its settings and its duration. Out: one JSON file, whole or not at all; jobs that share a store
each leave their own. A store that cannot be written to has none: what the run did is no less done.
"""

import os
from datetime import UTC, datetime
from pathlib import Path

from cache.store import package_versions
from extract.config import RunConfig
from extract.pipeline import RunSummary
from magnet_core.console import logger
from magnet_core.files import remove_left, write_json

log = logger(__name__)

FOLDER = "runs"


def write_run_summary(summary: RunSummary, config: RunConfig, *, started: datetime) -> Path | None:
    """Write the record of a run that began at `started` and has just ended; its path, or None."""
    seconds = (datetime.now(UTC) - started).total_seconds()
    path = config.store / FOLDER / f"{started:%Y%m%dT%H%M%SZ}-{os.getpid()}.json"
    remove_left(path.parent)  # each record has a name of its own, that is not written again
    try:
        write_json(
            path,
            {
                "started": started.isoformat(timespec="seconds"),
                "seconds": round(seconds, 3),
                "patches": summary.patches,
                "patches_per_second": round(summary.patches / seconds, 3) if seconds else None,
                "written": summary.written,
                "unchanged": summary.unchanged,
                "failed": summary.failed,
                "settings": config.plain(),
                "versions": package_versions(),
            },
        )
    except OSError as error:
        log.info("no record of this run: %s", error)
        return None
    return path

"""The folder of a run: a finished one is never replaced unasked, an unfinished one is gone on with.

summary.json   written last: a folder with it is finished
genes.parquet  metrics of each system, slide and gene
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cache.lock import FileLock
from magnet_core.errors import MagnetError
from train.learning.checkpoint import forget
from train.learning.trained_run import DESCRIPTION
from train.settings.fit import FitConfig

SUMMARY, GENES = "summary.json", "genes.parquet"


def check_folder(config: FitConfig) -> Path:
    """Return the run's folder; a finished run in it is refused unless it may be overwritten."""
    folder = config.runs / config.run_name
    if (folder / SUMMARY).exists() and not config.overwrite:
        raise MagnetError(
            folder, expected="a new run", found="a finished one", remedy="give another --name, or --overwrite"
        )
    return folder


def prepare(folder: Path) -> None:
    """Make the run's folder, and remove a finished run from it; what an unfinished one left stays, to go on from."""
    folder.mkdir(parents=True, exist_ok=True)
    if (folder / SUMMARY).exists():
        forget(folder)
        for name in (SUMMARY, GENES, DESCRIPTION):
            (folder / name).unlink(missing_ok=True)


@contextmanager
def held(folder: Path) -> Iterator[None]:
    """Keep a run to this process; one that another process is at is an error. A lock dies with its holder."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder.with_name(f"{folder.name}.lock"))
    if not lock.acquire(wait=False):
        raise MagnetError(
            folder,
            expected="a run that no other process is at",
            found=f"one that {lock.owner()} is at",
            remedy="wait for it, or give another --name",
        )
    try:
        yield
    finally:
        lock.release()

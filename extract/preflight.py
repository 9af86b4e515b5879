"""Checks of a run before torch and timm are imported: its table of slides, its files and its places.

In: the settings of a run, which `extract.config.load_run` has checked. Out: the slides to extract, and the error of
each slide that lacks files.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from cache.store import Store
from extract.config import RunConfig
from extract.faults import slide_faults
from extract.samples import check_files, read_samples, select
from magnet_core.console import logger
from magnet_core.engine.shard import Shard
from magnet_core.errors import MagnetError
from magnet_core.records import Sample

log = logger(__name__)


@dataclass(frozen=True)
class Accepted:
    """The slides of a run that have all their files, and the errors of the others, which the user has been told."""

    samples: tuple[Sample, ...]
    failed: Mapping[str, str]


def accept(config: RunConfig, shard: Shard | None = None) -> Accepted:
    """Read the table of slides and look for what a run needs. Raises `MagnetError` where nothing can be extracted.

    With a `shard`, of the slides that are asked for, those of this part.
    """
    check_place(config.store)
    samples = read_samples(config.samples)
    chosen = select(samples, config.slides) if config.slides else samples
    complete, failed = [], {}
    for sample in shard.of(chosen) if shard else chosen:
        try:
            with slide_faults(sample.slide_id):
                check_files(sample)
        except MagnetError as error:
            failed[sample.slide_id] = str(error)
            log.error("failed: %s: %s", sample.slide_id, error)
        else:
            complete.append(sample)
    return Accepted(tuple(complete), failed)


def check_place(store: Path) -> None:
    """Refuse a store that this version cannot read, or a place where no store can be made.

    A store that is there may be read-only: perhaps nothing is to do.
    """
    if (store / "store.json").exists():
        Store(store)
        return
    folder = store.absolute()
    while not folder.exists():
        folder = folder.parent
    if not folder.is_dir() or not os.access(folder, os.W_OK):
        found = "no right to write there" if folder.is_dir() else "a file"
        raise MagnetError(f"--store {folder}", expected="a folder to write to", found=found, remedy="choose another")

"""The platforms whose counts can be read: one row of `READERS` each.

In: the `counts` path of a sample. Out: `SlideCounts`. To add a platform, write a module that is a `Reader`, and add
its row.
"""

from pathlib import Path
from typing import Protocol

from extract.faults import foreign_bytes
from extract.readers import hest, legacy_st, space_ranger_hd, visium, xenium
from magnet_core.errors import MagnetError
from magnet_core.file_kind import refuse_stand_in
from magnet_core.records import Assay, Sample, SlideCounts
from magnet_core.registry import look_up


class Reader(Protocol):
    """The module of a platform: by what it is recognised, in words and in code, what it is read from, and how."""

    LOOKS_FOR: str

    def recognises(self, path: Path) -> bool:
        """Tell by the layout whether the counts at a path are of this platform."""

    def files(self, path: Path) -> list[Path]:
        """List the files that `read` reads; a missing one is an error."""

    def read(self, path: Path) -> SlideCounts:
        """Read the counts and where they lie."""


READERS: dict[str, Reader] = {
    "space_ranger_hd": space_ranger_hd,
    "visium": visium,
    "xenium": xenium,
    "hest": hest,
    "legacy_st": legacy_st,
}
ALIASES = {"visium_hd": "space_ranger_hd"}  # what else a platform is called


def platform_named(name: str, *, where: str) -> str:
    """Return the name in `READERS` that a platform's name, or another word for it, stands for; or an error."""
    platform = ALIASES.get(name.lower().replace(" ", "_"), name)
    look_up(READERS, platform, where=where)
    return platform


def detect_platform(path: Path) -> str:
    """Name the platform of a counts path by its layout; the error says what was looked for."""
    for name, reader in READERS.items():
        if reader.recognises(path):
            return name
    looked_for = "; ".join(f"{name}: {reader.LOOKS_FOR}" for name, reader in READERS.items())
    raise MagnetError(
        path,
        expected=f"counts of a known platform ({looked_for})",
        found="none of these" if path.exists() else "nothing there",
        remedy="correct the counts path, or name the platform in samples.csv",
    )


def read_counts(sample: Sample) -> SlideCounts:
    """Read the counts of a sample with the reader of its platform, detected where samples.csv names none."""
    reader, path = _reader(sample)
    with foreign_bytes(path):
        for file in reader.files(path):
            refuse_stand_in(file)
        counts = reader.read(path)
    for name, assay in {**{f"{um} µm bins": bins for um, bins in counts.bins.items()}, "spots": counts.spots}.items():
        if assay is not None:
            _check_counted(path, assay, name=name)
    return counts


def count_files(sample: Sample) -> list[Path]:
    """Files that `read_counts` reads for a sample: what its counts depend on, known without reading them."""
    reader, path = _reader(sample)
    with foreign_bytes(path):
        return reader.files(path)


def _reader(sample: Sample) -> tuple[Reader, Path]:
    if sample.counts is None:
        raise MagnetError(
            sample.slide_id,
            expected="a counts path",
            found="none: the slide is H&E only",
            remedy="fill in column 'counts' of samples.csv, or only predict this slide",
        )
    platform = sample.platform or detect_platform(sample.counts)
    return READERS[platform_named(platform, where=f"{sample.slide_id}, platform")], sample.counts


def _check_counted(path: Path, assay: Assay, *, name: str) -> None:
    """Refuse rows in tissue that all have no count: nothing can be learnt of them, and something has gone wrong."""
    if len(assay) and assay.counts is not None and not assay.counts.count_nonzero():
        raise MagnetError(
            path,
            expected=f"counts of the {name} in tissue",
            found=f"none at all in {len(assay):,} of them",
            remedy="give the matrix of this slide; to predict it without counts, leave its counts out of samples.csv",
        )

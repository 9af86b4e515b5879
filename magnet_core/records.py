"""What the readers hand to the pipeline: a sample as the user lists it, and its counts as a platform measured them.

Coordinates are (x, y) = (column, row) everywhere in this project. Vendors' files often hold (row, column); a reader
turns them once, here nothing does.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from scipy import sparse

from magnet_core.errors import MagnetError
from magnet_core.registry import near_names

# N rows (bins or spots), G genes

SHEET = "samples.csv"


@dataclass(frozen=True)
class Sample:
    """One row of samples.csv. `counts` is None for an H&E-only slide.

    `mpp_overrides` says that `mpp` holds whatever the files state; else files that contradict it are an error.
    `mpp_place` is where the user states it, for messages: a sample sheet, or an option of a command. `tissue` is a file
    that says where the tissue of an H&E-only slide is, and `like` are Space Ranger's outputs whose bins it gets.
    """

    slide_id: str
    image: Path
    counts: Path | None = None
    platform: str | None = None
    mpp: float | None = None
    patient: str = ""
    mpp_overrides: bool = False
    mpp_place: str = SHEET
    tissue: Path | None = None
    like: Path | None = None


@dataclass(frozen=True)
class Genes:
    """Gene ids (G,) and unique gene names (G,), in the order of the count columns."""

    ids: np.ndarray
    names: np.ndarray

    def __len__(self) -> int:
        return len(self.ids)

    def named(self, names: Sequence[str], *, where: str, expected: str, otherwise: str = "") -> np.ndarray:
        """Return the columns (P,) int64 of genes that are given by names or ids, in their order.

        An unknown one is an error that names those that come near; where none does, `otherwise` is the remedy.
        """
        column_of = {name: column for known in (self.ids, self.names) for column, name in enumerate(known.tolist())}
        if unknown := [name for name in names if name not in column_of]:
            near = near_names(unknown[0], self.names.tolist())
            raise MagnetError(
                where,
                expected=expected,
                found=", ".join(f"'{name}'" for name in unknown),
                remedy=near if near.startswith("did you mean") or not otherwise else otherwise,
            )
        return np.array([column_of[name] for name in names], np.int64)


@dataclass(frozen=True)
class Assay:
    """Bins or spots of one resolution of one slide, in tissue only, and their raw counts.

    barcodes   (N,) str
    centres_px (N, 2) float64, (x, y) of each bin or spot centre in full-resolution pixels of the input image
    counts     (N, G) CSR, raw integers; row i belongs to barcodes[i]; None on an H&E-only slide
    pitch_um   distance between neighbouring centres, where the platform fixes it (8, 16, 100, 200)
    """

    barcodes: np.ndarray
    centres_px: np.ndarray
    counts: sparse.csr_matrix | None
    pitch_um: float | None = None

    def __len__(self) -> int:
        return len(self.barcodes)


@dataclass(frozen=True)
class SlideCounts:
    """All that a platform measured on one slide, or where it would be on an H&E-only slide, which has no genes.

    `bins` maps the bin size in µm (8, 16) to its assay; `spots` holds the measured spots of a spot platform. One of
    the two is empty. `mpp` is the platform's own statement of µm/px, or None; `mpp_source` says where it stands.
    """

    platform: str
    genes: Genes
    bins: dict[int, Assay] = field(default_factory=dict)
    spots: Assay | None = None
    mpp: float | None = None
    mpp_source: str = ""

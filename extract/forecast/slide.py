"""A slide as a run would lay it, before there is one: rows of each level, bytes by kind, pixels to decode.

In: the settings of a run, the area of tissue, genes and molecules. Out: a `SlideForecast`. A square of tissue full of
bins goes through the code of a run (`lay_levels`, `write_levels`, `open_sinks`), which declares every array; only how
many genes a bin or a square shows is assumed, from molecules a bin and genes that are as uneven as a log-normal of
`SPREAD_OF_GENES`.
"""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from scipy import sparse
from scipy.stats import norm

from cache.schema import LEAD_BYTES, ArraySpec
from extract.background import BackgroundWriter
from extract.config import RunConfig
from extract.count_rows import CountRows
from extract.declared import DeclaredBytes
from extract.geometry import write_levels
from extract.levels import BAND_UM, Level, lay_levels
from extract.pipeline import open_sinks
from extract.probe import occupied_squares
from extract.readers.binning import bin_barcodes
from magnet_core.forecast.flops import shape_of_encoder
from magnet_core.levels import CENTRE, SPOT, bin_level, bin_sizes
from magnet_core.records import Assay, Genes, SlideCounts
from magnet_core.units import WORKING_MPP, patch_px

# N rows of a level, G genes

PIXELS, FEATURES, COUNTS, NEIGHBOURS, PLACES = "pixels", "features", "counts", "kNN", "places"
KINDS = (PIXELS, FEATURES, COUNTS, NEIGHBOURS, PLACES)
SPREAD_OF_GENES = 2.0  # sd of the logarithm of a gene's share; assumed
PAGE_BYTES = 4096
LEAF_BYTES = 256  # of a block's key, its checksum and their nodes, pages that are half full included
FINEST = 8  # µm


@dataclass(frozen=True)
class Tissue:
    """What is on a slide: mm² of tissue, genes G that are measured, and molecules a bin of 8 µm on average."""

    mm2: float = 42.0
    genes: int = 18_085
    molecules: float = 200.0


@dataclass(frozen=True)
class LevelForecast:
    """One level: rows, the side of its patches, patches to encode in all views, and bytes in the store by kind."""

    name: str
    rows: int
    side_px: int
    encode: int
    nbytes: Mapping[str, int]


@dataclass(frozen=True)
class SlideForecast:
    """One slide: its levels, the bins of 8 µm on its tissue, and the megapixels that are decoded."""

    levels: Sequence[LevelForecast]
    bins: int
    decode_mpx: float
    nbytes: Mapping[str, int] = field(init=False)

    def __post_init__(self) -> None:
        total: Counter[str] = Counter()
        for level in self.levels:
            total.update(level.nbytes)
        object.__setattr__(self, "nbytes", {kind: total[kind] for kind in KINDS})

    @property
    def encode(self) -> int:
        """Patches for the encoder."""
        return sum(level.encode for level in self.levels)


class DeclaredSpecs(DeclaredBytes):
    """Keeps what is declared to it."""

    @property
    def specs(self) -> Sequence[ArraySpec]:
        """The arrays, as they would be stored."""
        return tuple(self._specs.values())


def forecast_slide(config: RunConfig, tissue: Tissue) -> SlideForecast:
    """Lay a square of tissue and declare all that a run would write of it."""
    counts = square_of_bins(tissue)
    levels = [
        replace(level, counts=expected_counts(level, tissue))
        for level in lay_levels(counts, WORKING_MPP, config.geometry, slide_id="plan")
    ]
    geometry, features = DeclaredSpecs(), DeclaredSpecs()
    write_levels(geometry, levels, counts.genes)
    encoder = shape_of_encoder(config.embedding.backbone)
    with BackgroundWriter() as background:
        pixels = geometry if config.pixels else None
        open_sinks(levels, encoder, config, geometry=pixels, features=features, background=background)
    nbytes = {level.name: Counter[str]() for level in levels}
    for spec, is_feature in [*((spec, False) for spec in geometry.specs), *((spec, True) for spec in features.specs)]:
        name, _, array = spec.name.partition("/")
        kind = FEATURES if is_feature else kind_of(array)
        nbytes[name if name in nbytes else levels[0].name][kind] += stored_bytes(spec)  # genes: with the first level
    laid = [
        LevelForecast(
            level.name,
            len(level),
            patch_px(level.patch_um),
            encode=len(level) * config.embedding.views,
            nbytes=nbytes[level.name],
        )
        for level in levels
    ]
    decode_px = len(occupied_squares(levels)) * (BAND_UM / WORKING_MPP) ** 2
    return SlideForecast(laid, len(counts.bins[FINEST]), decode_px / 1e6)


def square_of_bins(tissue: Tissue) -> SlideCounts:
    """Lay bins of all sizes on a square of tissue; they have no counts yet."""
    names = np.array([f"ENSG{number:011d}" for number in range(tissue.genes)])
    bins = {}
    for um in bin_sizes():
        along = max(1, round(math.sqrt(tissue.mm2) * 1000 / um))
        cells = np.stack(np.divmod(np.arange(along**2), along)[::-1], axis=1)
        barcodes = np.broadcast_to(bin_barcodes(um, cells[-1:])[0], len(cells))
        bins[um] = Assay(barcodes, (cells + 0.5) * um / WORKING_MPP, None, pitch_um=float(um))
    return SlideCounts("plan", Genes(names, names), bins=bins)


def expected_counts(level: Level, tissue: Tissue) -> CountRows | None:
    """Return counts of as many genes in each row as are expected; none of a centre, which is not measured."""
    if level.name == CENTRE:
        return None
    sides = {bin_level(um): float(um) for um in bin_sizes()} | {SPOT: level.patch_um}
    seen = genes_seen(tissue, side_um=sides.get(level.name, level.patch_um))
    indices, values = np.arange(seen, dtype=np.int32), np.ones(seen, dtype=np.int32)
    row = sparse.csr_matrix((values, indices, [0, seen]), shape=(1, tissue.genes))
    return CountRows(row, np.zeros(len(level), np.int64))


def genes_seen(tissue: Tissue, *, side_um: float) -> int:
    """How many genes have a molecule in a square, on average."""
    share = np.exp(SPREAD_OF_GENES * norm.ppf((np.arange(tissue.genes) + 0.5) / tissue.genes))
    molecules = tissue.molecules * (side_um / FINEST) ** 2 * share / share.sum()
    return round(float(-np.expm1(-molecules).sum()))


def kind_of(array: str) -> str:
    """Which kind of bytes an array of a level's geometry is."""
    kinds = {"pixels": PIXELS, "counts": COUNTS, "edges": NEIGHBOURS}
    return kinds.get(array.partition("/")[0], PLACES)


def stored_bytes(spec: ArraySpec) -> int:
    """Bytes of an array in its file: each block takes whole pages, after the header of a page and `LEAD_BYTES`."""
    header = PAGE_BYTES - LEAD_BYTES
    pages = (-(-(header + LEAD_BYTES + spec.block_nbytes(block)) // PAGE_BYTES) for block in range(spec.num_blocks))
    return sum(pages) * PAGE_BYTES + spec.num_blocks * LEAF_BYTES

"""From tissue to counts. In: map, cells, bin grid, genes. Out: true rates and negative-binomial UMI counts per bin.

A bin's rate follows from the cells in and around it, its domain and its distance to other tissue (`GeneModel.rates`);
the count adds a capture efficiency per bin and negative-binomial noise. Rates are made in blocks of bins, never whole.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from scipy import ndimage, sparse

from extract.synthetic.cells import Cells
from extract.synthetic.genes import GeneModel
from extract.synthetic.grid import BinGrid
from extract.synthetic.histology import CELL_TYPES, GLASS
from extract.synthetic.tissue import TissueMap

SPREAD_BINS = 0.55  # RNA strays this far from its cell (sd)
AMBIENT_TISSUE, AMBIENT_GLASS = 0.12, 0.008  # RNA content of a bin without cells, in and outside the tissue
BLOCK_BINS = 2048

# B bins of the whole grid, in its order, n bins of a block, T cell types, G genes


@dataclass(frozen=True)
class BinTruth:
    """What makes the rates of all bins of a slide.

    domain      (B,) int8, index into `DOMAINS`, or `GLASS`
    boundary_um (B,) float32, distance to tissue of another family
    content     (B, T + 1) float32, expected RNA by cell type, and ambient; scaled to UMIs
    capture     (B,) float32, capture efficiency, mean 1: no image tells it, and the true rates leave it out
    in_tissue   (B,) bool, equal for the four bins of one 16 µm bin
    """

    domain: np.ndarray
    boundary_um: np.ndarray
    content: np.ndarray
    capture: np.ndarray
    in_tissue: np.ndarray

    def rate_blocks(self, genes: GeneModel) -> Iterator[tuple[slice, np.ndarray]]:
        """True rates (n, G), float32, expected UMIs at capture efficiency 1, for successive blocks of bins."""
        for start in range(0, len(self.domain), BLOCK_BINS):
            block = slice(start, start + BLOCK_BINS)
            yield block, genes.rates(self.content[block], self.domain[block], self.boundary_um[block])


def observe_bins(
    tissue: TissueMap, cells: Cells, grid: BinGrid, genes: GeneModel, *,
    umi_per_bin: float, capture_sd: float, rng: np.random.Generator,
) -> BinTruth:  # fmt: skip
    """Work out what each bin sees, scaled so that the median bin in tissue expects `umi_per_bin` UMIs."""
    centres_um = grid.centres_um()
    domain = tissue.at(tissue.domain, centres_um)
    coarse = grid.coarser()
    in_tissue = (tissue.at(tissue.domain, coarse.centres_um()) != GLASS)[grid.parent()]
    content = _rna_content(cells, grid)
    content[:, -1] = np.where(domain != GLASS, AMBIENT_TISSUE, AMBIENT_GLASS)
    truth = BinTruth(
        domain=domain,
        boundary_um=tissue.at(tissue.boundary_um, centres_um),
        content=content,
        capture=rng.lognormal(-(capture_sd**2) / 2, capture_sd, len(grid)).astype(np.float32),
        in_tissue=in_tissue,
    )
    totals = np.concatenate([rates.sum(axis=1) for _, rates in truth.rate_blocks(genes)])
    content *= umi_per_bin / np.median(totals[in_tissue])
    return truth


def _rna_content(cells: Cells, grid: BinGrid) -> np.ndarray:
    """RNA (B, T + 1) of the cells in and around each bin; the last column is left at 0."""
    home = grid.index_of(cells.xy_um)
    content = np.zeros((len(grid), len(CELL_TYPES) + 1), np.float32)
    for kind, cell in enumerate(CELL_TYPES):
        here = home[(cells.kind == kind) & (home >= 0)]
        number = np.bincount(here, minlength=len(grid)).reshape(grid.size, grid.size)
        spread = ndimage.gaussian_filter(number.astype(np.float32), SPREAD_BINS, mode="constant")
        content[:, kind] = cell.rna * spread.ravel()
    return content


def negative_binomial(rates: np.ndarray, dispersion: float, rng: np.random.Generator) -> sparse.csr_matrix:
    """Counts (n, G), int32, with mean `rates` (n, G) and variance rates + dispersion · rates².

    A negative binomial is a Poisson number of bursts, each of logarithmic size. All bursts of the block are thrown
    at once, so the cost follows the counts that arise, not the many zeros between them.
    """
    edges = np.cumsum(np.log1p(dispersion * rates), dtype=np.float64) / dispersion
    bursts = rng.random(rng.poisson(edges[-1])) * edges[-1]
    bursts.sort()
    hit = np.minimum(np.searchsorted(edges, bursts, side="right"), len(edges) - 1)
    spread = dispersion * rates.reshape(-1)[hit].astype(np.float64)
    sizes = rng.logseries(spread / (1 + spread))
    places, first = np.unique(hit, return_index=True)
    counts = np.add.reduceat(sizes, first).astype(np.int32) if len(places) else np.zeros(0, np.int32)
    rows, columns = np.divmod(places, rates.shape[1])
    indptr = np.concatenate([[0], np.cumsum(np.bincount(rows, minlength=len(rates)))])
    return sparse.csr_matrix((counts, columns, indptr), shape=rates.shape)


def sum_into_coarse(counts: sparse.csr_matrix, grid: BinGrid) -> sparse.csr_matrix:
    """Counts (B / 4, G) of the 16 µm bins: the exact sums of their four 8 µm bins."""
    each = np.ones(len(grid), np.int32)
    member = sparse.csr_matrix((each, (grid.parent(), np.arange(len(grid)))), shape=(len(grid) // 4, len(grid)))
    return (member @ counts).tocsr()

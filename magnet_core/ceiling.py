"""The noise ceiling: an upper bound of the correlation with measured expression that any predictor can reach.

In: raw counts of the panel on ONE slide, and how they are normalised. Out: a ceiling per gene, by which the tables'
correlations per gene over bins are divided. Nothing but the counts is needed: no truth, no image, no coordinates.

The textbook's way is to thin counts into halves, to correlate the labels of the halves (r), and to take
sqrt(2r / (1 + r)). That holds for labels whose noise adds up. Logarithms of a few counts are not such: on synthetic
Visium HD slides of 30 to 5,000 counts a bin it lies 0.01 to 0.08 too high, the mean over genes of what follows at most
0.013 off, either way. Counts are dealt into thirds, and the signal's growth is followed to full depth:

    s(d)      sd over bins of the label expected at depth d, a part of the counts, given a bin's expression: the signal
    s(1/3)²   = covariance of the labels of two thirds of one bin: their noise is independent
    s(2/3)    = covariance of a third's label with that of the other two, ÷ s(1/3). It takes expected labels at the
                two depths as proportional over bins; on synthetic slides they correlate by some 0.99
    s(1)      from 1/s being linear in 1/d: in proportion to depth where counts are few, level where they are many
    ceiling   = s(1) ÷ sd of the measured label, which needs no extrapolation
"""

from collections.abc import Iterator

import numpy as np
from scipy import sparse

from magnet_core.errors import MagnetError
from magnet_core.settings.normalise import NormaliseConfig

# N rows of a slide, B rows of a block, E stored entries of a block, P panel genes

PARTS = 3
BLOCK_ROWS = 1 << 12
GROWTH = (0.5, 2.0)  # of the signal from a third to two: at most like depth; logs of many counts may even lose some
CONSTANT_TOLERANCE = 1e-10  # a variance below this part of the mean square is rounding


def noise_ceiling(
    counts: sparse.csr_matrix,
    libraries: np.ndarray,
    config: NormaliseConfig,
    rng: np.random.Generator,
    *,
    dispersion: float | np.ndarray = 0.0,
    thinnings: int = 4,
) -> np.ndarray:
    """Bound the correlation over the rows of a slide that a prediction of each gene can have, (P,) from 0 to 1.

    `counts` (N, P) are raw; `libraries` (N,) are what the labels divide them by, row sums over the panel or over all
    genes; `thinnings` are averaged. A gene whose label does not vary is NaN; one without a trace of signal is 0.

    What counts as noise is assumed, and counts alone cannot tell it:
    - 0 `dispersion`: given a bin's expression, its counts are Poisson. All that differs between bins beyond that is
      signal, also what no image shows: an upper bound, which over-dispersed counts leave the further behind.
    - `dispersion` φ > 0, one or one a gene (P,): counts are negative binomial, variance = mean + φ · mean², and the
      excess is noise as well, independent between genes and bins. Counts are dealt by beta-binomial draws, which keep
      the parts independent. `magnet_core.overdispersion` estimates φ from bins that touch.
    - How well each bin captures RNA counts as signal; normalisation removes most of it. With a sd of 20 % it raises
      the ceiling by some 0.005. Against who knows the true rates and φ alone, the mean over genes is 0.006 too low to
      0.023 too high.
    On few thousand bins single genes are uncertain by some 0.03, their mean is not; a ceiling below 0.1 means little.
    In a panel of about ten genes, each a good part of its own library, the ceiling reads 0.01 to 0.02 high; where genes
    vary little (log rate with a sd of 0.6) at several counts a bin, 0.03.
    """
    _check(counts, libraries, dispersion=dispersion, thinnings=thinnings)
    of_gene = np.broadcast_to(np.asarray(dispersion, dtype=np.float64), counts.shape[1:])
    measured_sums, dealt_sums = np.zeros((2, counts.shape[1])), np.zeros((4, counts.shape[1]))
    for block, library in _blocks(counts, libraries):
        row = np.repeat(np.arange(len(library)), np.diff(block.indptr))
        measured = _labels(block.data, library[row], config)
        measured_sums += [_per_gene(block, each) for each in (measured, measured**2)]
        for _ in range(thinnings):
            dealt_sums += _dealt_sums(block, library, row, config=config, dispersion=of_gene, rng=rng)
    num_rows = max(counts.shape[0], 1)
    mean, mean_square = measured_sums / num_rows
    part, complement, pair_product, complement_product = dealt_sums / (PARTS * thinnings * num_rows)
    signal = _at_full_depth(pair_product - part**2, complement_product - part * complement)
    variance = mean_square - mean**2
    varies = variance > CONSTANT_TOLERANCE * mean_square
    return np.where(varies, np.minimum(signal / np.sqrt(np.where(varies, variance, 1.0)), 1.0), np.nan)


def _dealt_sums(
    block: sparse.csr_matrix, library: np.ndarray, row: np.ndarray, *,
    config: NormaliseConfig, dispersion: np.ndarray, rng: np.random.Generator,
) -> np.ndarray:  # fmt: skip
    """Deal a block out once; sums (4, P) over rows and the three parts, or the three pairs of parts.

    Of the labels of parts, of their complements (the other two parts), of pairs of parts multiplied, and of parts
    multiplied by their complements. `row` (E,) is the row of each stored entry.
    """
    others = library - _per_row(row, block.data, len(library))  # counts of genes outside the panel
    dealt = _deal(block.data, dispersion[block.indices], rng)
    shares = _deal(others, np.zeros(len(others)), rng) + np.stack([_per_row(row, part, len(library)) for part in dealt])
    parts = _labels(dealt, shares[:, row], config)
    complements = _labels(block.data - dealt, (library - shares)[:, row], config)
    part = parts.sum(axis=0)
    pair_product = (part**2 - (parts**2).sum(axis=0)) / 2
    products = (part, complements.sum(axis=0), pair_product, (parts * complements).sum(axis=0))
    return np.stack([_per_gene(block, each) for each in products])


def _at_full_depth(between_parts: np.ndarray, to_complement: np.ndarray) -> np.ndarray:
    """s(1) (P,) from s(1/3)² and s(1/3) · s(2/3): 1/s(1) = 4/3 · 1/s(2/3) − 1/3 · 1/s(1/3). 0 where there is none."""
    present = between_parts > 0
    growth = np.clip(np.where(present, to_complement, 1.0) / np.where(present, between_parts, 1.0), *GROWTH)
    return np.sqrt(np.where(present, between_parts, 0.0)) * growth / ((4 - growth) / 3)


def _deal(counts: np.ndarray, dispersion: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Deal counts (E,) out into three parts (3, E) of equal mean, independent given the expression behind them."""
    parts = []
    rest = counts
    for left in range(PARTS, 1, -1):
        share: float | np.ndarray = 1 / left
        clumps = (dispersion > 0) & (rest > 1)  # a single count goes to any part alike
        if clumps.any():
            size = 1 / (dispersion[clumps] * PARTS)  # of the negative binomial of one part
            share = np.full(len(counts), share)
            share[clumps] = rng.beta(size, size * (left - 1))
        parts.append(rng.binomial(rest, share))
        rest = rest - parts[-1]
    return np.stack([*parts, rest])


def _labels(counts: np.ndarray, libraries: np.ndarray, config: NormaliseConfig) -> np.ndarray:
    """Normalised expression of stored entries, as `expression` has it; of an entry that is not stored it is 0."""
    values = counts if config.library == "none" else counts * (config.scale / np.maximum(libraries, 1))
    return np.log1p(values) if config.log else values.astype(np.float64)


def _per_gene(block: sparse.csr_matrix, values: np.ndarray) -> np.ndarray:
    """Sums (P,) of values (E,) of the stored entries."""
    return np.bincount(block.indices, weights=values, minlength=block.shape[1])


def _per_row(row: np.ndarray, values: np.ndarray, num_rows: int) -> np.ndarray:
    """Sums (B,) of counts (E,) of the stored entries, whole numbers."""
    return np.bincount(row, weights=values, minlength=num_rows).astype(np.int64)


def _blocks(counts: sparse.csr_matrix, libraries: np.ndarray) -> Iterator[tuple[sparse.csr_matrix, np.ndarray]]:
    """Counts (B, P) and libraries (B,) of successive blocks of rows, whole numbers both."""
    for start in range(0, counts.shape[0], BLOCK_ROWS):
        block = counts[start : start + BLOCK_ROWS].astype(np.int64)
        yield block, np.asarray(libraries[start : start + BLOCK_ROWS]).astype(np.int64)


def _check(counts: sparse.csr_matrix, libraries: np.ndarray, *, dispersion: float | np.ndarray, thinnings: int) -> None:
    where = "noise ceiling"
    if np.any(counts.data < 0) or np.any(counts.data != np.floor(counts.data)):
        raise MagnetError(
            where, expected="raw counts, whole numbers of 0 or more", found="others", remedy="pass counts as measured"
        )
    if np.shape(libraries) != counts.shape[:1]:
        raise MagnetError(
            where,
            expected=f"a library for each of {counts.shape[0]} rows",
            found=f"shape {np.shape(libraries)}",
            remedy="pass the row sums that the labels are normalised by",
        )
    short = int((~(np.asarray(libraries) >= np.asarray(counts.sum(axis=1)).ravel())).sum())  # NaN is short as well
    if short:
        raise MagnetError(
            where,
            expected="libraries that hold the counts of the panel",
            found=f"{short} rows with a library below their sum",
            remedy="pass the row sums that the labels are normalised by",
        )
    if np.shape(dispersion) not in ((), counts.shape[1:]) or not np.all(np.asarray(dispersion) >= 0) or thinnings < 1:
        raise MagnetError(
            where,
            expected="dispersion >= 0, one or one a gene, and thinnings >= 1",
            found=f"{dispersion} and {thinnings}",
            remedy="change the setting",
        )

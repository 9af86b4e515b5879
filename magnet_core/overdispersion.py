"""Over-dispersion of counts, estimated gene by gene from bins that touch, where no bin was measured twice.

In: raw counts of the panel on ONE slide, the libraries that labels are divided by, and which bins touch. Out: for each
gene the φ of variance = mean + φ · mean². Bins that touch stand in for repeats of one bin. With y ~ library · rate,

    E y_i (y_i − 1) = (1 + φ) λ_i²   and, noise of two bins being independent,   E y_i y_j = λ_i λ_j

so that 1 + φ is what the former is of the latter, brought to equal libraries: no less, as the rates of two bins differ
and ½ (λ_i² + λ_j²) ≥ λ_i λ_j. What truly differs between touching bins is in φ: it is an estimate from above.
"""

import numpy as np
from scipy import sparse

# N rows of a slide, E pairs of touching rows, P panel genes

FEWEST_TOGETHER = 100  # products of counts of touching bins, of a gene that can be judged: 1 + φ to some 15 %
BLOCK_PAIRS = 1 << 16


def touching_dispersion(counts: sparse.csr_matrix, libraries: np.ndarray | None, pairs: np.ndarray) -> np.ndarray:
    """φ (P,) of each gene, 0 or more; NaN for a gene that too few touching bins share.

    `counts` (N, P) are raw, `libraries` (N,) None where labels are not divided by any, `pairs` (E, 2) rows that touch,
    each once. Given its library the counts of a bin are a share of it, so that one count in it is already spoken for:
    the square of a library is L (L − 1).

    What the noise of touching bins has in common, as RNA that strays further than a bin, passes for expression: φ is
    then too low.
    """
    library = np.full(counts.shape[0], 2.0) if libraries is None else np.asarray(libraries, dtype=np.float64)
    pairs = pairs[(library[pairs] > 1).all(axis=1)]
    less_one = library if libraries is None else library - 1
    first, second = pairs.T
    weight = np.zeros(len(library))
    np.add.at(weight, first, library[second] / less_one[first] / 2)
    np.add.at(weight, second, library[first] / less_one[second] / 2)
    values = counts.astype(np.float64)
    alone = values.multiply(values).T @ weight - values.T @ weight  # Σ ½ y (y − 1) · L_j / (L_i − 1)
    together = np.zeros(counts.shape[1])
    for start in range(0, len(pairs), BLOCK_PAIRS):
        one, other = pairs[start : start + BLOCK_PAIRS].T
        together += np.asarray(values[one].multiply(values[other]).sum(axis=0)).ravel()
    judged = together >= FEWEST_TOGETHER
    return np.where(judged, np.maximum(alone / np.where(judged, together, 1.0) - 1, 0.0), np.nan)

"""The probe of the HEST benchmark as its paper and its read-me describe it, in NumPy and scikit-learn alone.

Jaume et al. 2024: patches of 112 µm at 0.5 µm/px around spots; log(1 + count) of the 50 genes that vary most among
those found in a tenth of the spots of every slide; z-scores, 256 principal components, and ridge without intercept,
whose penalty is 100 / (components · genes); correlation of each gene over all spots of the test patient.
"""

from collections.abc import Sequence

import numpy as np
from scipy.stats import pearsonr
from sklearn.decomposition import PCA
from sklearn.linear_model import Ridge
from sklearn.preprocessing import StandardScaler

# N spots, G genes, D features, p pixels a side


def cut_patches(image: np.ndarray, centres_px: np.ndarray, side_px: int) -> np.ndarray:
    """Patches (N, p, p, 3) around centres (N, 2), each inside an image (H, W, 3) of the wanted resolution."""
    corners = (centres_px - side_px / 2).astype(int)
    return np.stack([image[y : y + side_px, x : x + side_px] for x, y in corners])


def most_variable(counts: Sequence[np.ndarray], genes: Sequence[str], number: int) -> list[str]:
    """Names of the genes of highest variance of log(1 + count) over the spots of all slides, (N, G) each."""
    often = np.all([(of_slide > 0).mean(axis=0) >= 0.1 for of_slide in counts], axis=0)
    variance = np.log1p(np.concatenate(counts).astype(np.float64)).var(axis=0)
    order = [column for column in np.argsort(-variance) if often[column]]
    return [genes[column] for column in order[:number]]


def probe(
    training: tuple[np.ndarray, np.ndarray], test: tuple[np.ndarray, np.ndarray], *, components: int = 256
) -> np.ndarray:
    """Correlations (G,) of a fold; each side is features (N, D) and counts (N, G) of the genes that are predicted."""
    (inputs, counts), (test_inputs, test_counts) = training, test
    labels, truth = np.log1p(counts.astype(np.float64)), np.log1p(test_counts.astype(np.float64))
    scaler, pca = StandardScaler(), PCA(n_components=components, svd_solver="full")
    reduced = pca.fit_transform(scaler.fit_transform(inputs.astype(np.float64)))
    ridge = Ridge(alpha=100 / (reduced.shape[1] * labels.shape[1]), fit_intercept=False, solver="svd")
    ridge.fit(reduced, labels)
    predicted = ridge.predict(pca.transform(scaler.transform(test_inputs.astype(np.float64))))
    return np.array([pearsonr(truth[:, gene], predicted[:, gene])[0] for gene in range(labels.shape[1])])

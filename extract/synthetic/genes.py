"""The genes of the data set and what drives each. In: a number and a generator. Out: `GeneModel`, shared by all slides.

Four classes: `housekeeping` follows the amount of tissue; `marker` one cell type in the bin; `domain` the kind of
tissue around (region context); `boundary` the distance to another tissue (neighbour context). Means are long-tailed
and do not depend on the class, so a panel of the top genes holds all four.
"""

from dataclasses import dataclass

import numpy as np
from scipy.special import ndtri

from extract.synthetic.histology import CELL_NAMES, DOMAINS

CLASSES = ("housekeeping", "marker", "domain", "boundary")
CLASS_SHARES = (0.20, 0.40, 0.25, 0.15)
MEAN_LOG_SD = 1.3  # spread of the log of gene means
MARKER_FOLD = 20.0  # a marker in its own cell type against the others
DOMAIN_FOLD = 8.0  # a domain gene at home against elsewhere
BOUNDARY_LOG = 2.2  # log change of a boundary gene at the boundary, up or down
FALL_OFF_UM = 45.0  # over which it fades
REPEATED_SYMBOLS = 4  # symbols that two genes share

# B bins, G genes, T cell types, K domains


@dataclass(frozen=True)
class GeneModel:
    """Genes and what drives them.

    ids, symbols, classes (G,) str; ids are unique, a few symbols repeat
    target   (G,) str, the cell type of a marker, the domain of a domain gene, "toward"/"away" of a boundary gene
    profile  (T + 1, G) expression per unit of RNA of each cell type, and of the ambient background
    domain   (K + 1, G) factor by domain; the last row, index −1, is glass
    boundary (G,) log change at a boundary
    """

    ids: np.ndarray
    symbols: np.ndarray
    classes: np.ndarray
    target: np.ndarray
    profile: np.ndarray
    domain: np.ndarray
    boundary: np.ndarray

    def __len__(self) -> int:
        return len(self.ids)

    def rates(self, content: np.ndarray, domain: np.ndarray, boundary_um: np.ndarray) -> np.ndarray:
        """Expected expression (B, G), float32, up to one factor per slide.

        content (B, T + 1) RNA content by cell type and ambient; domain (B,) index; boundary_um (B,) distance.
        """
        nearness = np.exp(-boundary_um / FALL_OFF_UM)
        rates: np.ndarray = (content @ self.profile) * self.domain[domain] * np.exp(nearness[:, None] * self.boundary)
        return rates


def draw_genes(number: int, rng: np.random.Generator) -> GeneModel:
    """Draw the genes of a data set."""
    classes = np.repeat(CLASSES, _shares(number))[rng.permutation(number)]
    mean = np.exp(MEAN_LOG_SD * ndtri((np.arange(number) + 0.5) / number))[rng.permutation(number)]
    profile, marker_target = _draw_profile(classes, mean, rng)
    domain, domain_target = _draw_domain(classes, rng)
    sign = np.where(rng.random(number) < 0.7, 1.0, -1.0)
    is_boundary = classes == "boundary"
    target = np.where(is_boundary, np.where(sign > 0, "toward", "away"), "")
    target = np.where(classes == "marker", marker_target, np.where(classes == "domain", domain_target, target))
    symbols = np.array([f"SYN{index + 1}" for index in range(number)])
    symbols[-REPEATED_SYMBOLS:] = symbols[:REPEATED_SYMBOLS]
    return GeneModel(
        ids=np.array([f"ENSGSYN{index + 1:08}" for index in range(number)]),
        symbols=symbols,
        classes=classes,
        target=target,
        profile=profile.astype(np.float32),
        domain=domain.astype(np.float32),
        boundary=np.where(is_boundary, sign * BOUNDARY_LOG, 0).astype(np.float32),
    )


def _shares(number: int) -> np.ndarray:
    edges = np.round(np.cumsum(CLASS_SHARES) * number).astype(np.int64)
    return np.diff(edges, prepend=0)


def _draw_profile(classes: np.ndarray, mean: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Profiles (T + 1, G) around the means, and each gene's cell type (G,), used where it is a marker."""
    types = len(CELL_NAMES)
    own = rng.integers(0, types, len(mean))
    fold = np.ones((types, len(mean)))
    fold[own, np.arange(len(mean))] = MARKER_FOLD
    fold *= (types / (types - 1 + MARKER_FOLD)) ** 0.5  # a marker is well above its mean at home, below it elsewhere
    wobble = np.exp(rng.normal(0, 0.15, fold.shape))
    profile = mean * np.where(classes == "marker", fold, 1.0) * wobble
    return np.concatenate([profile, profile.mean(axis=0, keepdims=True)]), np.array(CELL_NAMES)[own]


def _draw_domain(classes: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Factors (K + 1, G), and each gene's home (G,), used where it is a domain gene."""
    home = rng.integers(0, len(DOMAINS), len(classes))
    factor = np.ones((len(DOMAINS) + 1, len(classes)))
    is_domain = classes == "domain"
    factor[:-1, is_domain] = 0.5
    factor[home[is_domain], np.flatnonzero(is_domain)] *= DOMAIN_FOLD
    return factor, np.array([recipe.name for recipe in DOMAINS])[home]

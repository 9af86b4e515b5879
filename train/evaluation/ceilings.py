"""The noise ceiling of the test slides of a fold, as a table in the place of a system's correlations.

Beside the ceiling, an upper bound, stands an estimate from below: over-dispersion as touching bins show it, which takes
what truly differs between them for noise, and the ceiling that it would leave. Where no bins touch there is none.
"""

import numpy as np
import polars as pl
from scipy import sparse

from magnet_core.ceiling import noise_ceiling
from magnet_core.overdispersion import touching_dispersion
from magnet_core.records import Genes
from magnet_core.seams import touching_pairs
from magnet_core.seeding import named_rng
from magnet_core.settings.normalise import NormaliseConfig
from train.data.fold_sides import FoldSides
from train.data.raw_counts import read_counts
from train.data.slide import Slide
from train.evaluation.scores import DISPERSION, LOW_CEILING

# N fine rows of a slide, P panel genes


def ceilings(sides: FoldSides, system: str) -> pl.DataFrame:
    """The noise ceiling of each gene on each test slide as the correlation of a `system` of this name.

    `dispersion` and `ceiling_low` are the estimates of `low_ceiling`.
    """
    panel, normalise = sides.training.panel, sides.training.normalise
    tables = []
    for slide in sides.test_slides:
        counts, library = _counts_and_libraries(slide, panel, normalise)
        ceiling = noise_ceiling(counts, library, normalise, _rng(slide))
        dispersion, low = low_ceiling(slide, counts, library, normalise)
        table = _ceiling_table(system, slide.slide_id, panel, ceiling)
        low = np.minimum(low, ceiling)  # two estimates by chance of their own
        tables.append(table.with_columns(pl.Series(DISPERSION, dispersion), pl.Series(LOW_CEILING, low)))
    return pl.concat(tables)


def slide_ceiling(slide: Slide, panel: Genes, normalise: NormaliseConfig) -> np.ndarray:
    """The noise ceiling (P,) of a slide's fine rows, an upper bound; NaN for a gene that does not vary."""
    counts, library = _counts_and_libraries(slide, panel, normalise)
    return noise_ceiling(counts, library, normalise, _rng(slide))


def low_ceiling(
    slide: Slide, counts: sparse.csr_matrix, library: np.ndarray, normalise: NormaliseConfig
) -> tuple[np.ndarray, np.ndarray]:
    """Over-dispersion (P,) as touching rows show it, and the ceiling (P,) if all of it were noise; NaN if unknown."""
    pairs = touching_pairs(slide.fine.centres_um, slide.fine.edges, pitch_um=slide.target.um)
    dispersion = touching_dispersion(counts, None if normalise.library == "none" else library, pairs)
    known = np.isfinite(dispersion)
    if not known.any():
        return dispersion, dispersion.copy()
    rng = named_rng(0, "low ceiling", slide.slide_id)
    low = noise_ceiling(counts, library, normalise, rng, dispersion=np.where(known, dispersion, 0.0))
    return dispersion, np.where(known, low, np.nan)


def _rng(slide: Slide) -> np.random.Generator:
    return named_rng(0, "ceiling", slide.slide_id)


def _counts_and_libraries(
    slide: Slide, panel: Genes, normalise: NormaliseConfig
) -> tuple[sparse.csr_matrix, np.ndarray]:
    """Raw counts (N, P) and libraries (N,) to deal out."""
    counts, library = read_counts(slide, panel, normalise)
    if normalise.library == "none":  # the labels know of none; what is dealt out is the panel alone
        library = np.asarray(counts.sum(axis=1)).ravel()
    return counts, library


def _ceiling_table(system: str, slide_id: str, panel: Genes, ceiling: np.ndarray) -> pl.DataFrame:
    return pl.DataFrame(
        {
            "system": system,
            "slide_id": slide_id,
            "gene_id": panel.ids,
            "gene_name": panel.names,
            "mse": np.nan,
            "mae": np.nan,
            "pcc": ceiling,
        }
    )

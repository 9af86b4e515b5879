"""The noise ceiling of the test slides of a fold, as a table in the place of a system's correlations."""

import numpy as np
import polars as pl

from magnet_core.ceiling import noise_ceiling
from magnet_core.records import Genes
from magnet_core.seeding import named_rng
from magnet_core.settings.normalise import NormaliseConfig
from train.data.fold_sides import FoldSides
from train.data.raw_counts import read_counts
from train.data.slide import Slide

# P panel genes


def ceilings(sides: FoldSides, system: str) -> pl.DataFrame:
    """The noise ceiling of each gene on each test slide as the correlation of a `system` of this name."""
    panel, normalise = sides.training.panel, sides.training.normalise
    tables = []
    for slide in sides.test_slides:
        tables.append(_ceiling_table(system, slide.slide_id, panel, slide_ceiling(slide, panel, normalise)))
    return pl.concat(tables)


def slide_ceiling(slide: Slide, panel: Genes, normalise: NormaliseConfig) -> np.ndarray:
    """The noise ceiling (P,) of a slide's fine rows; NaN for a gene that does not vary."""
    counts, library = read_counts(slide, panel, normalise)
    if normalise.library == "none":  # the labels know of none; what is dealt out is the panel alone
        library = np.asarray(counts.sum(axis=1)).ravel()
    return noise_ceiling(counts, library, normalise, named_rng(0, "ceiling", slide.slide_id))


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

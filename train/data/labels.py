"""The labels of a slide: the normalised expression of its levels."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from cache.reader import ArrayFile
from magnet_core.expression import columns_of, expression
from magnet_core.records import Genes
from magnet_core.settings.normalise import NormaliseConfig
from train.data.count_blocks import read_count_blocks

# N rows of a level, P panel genes, p chosen ones

if TYPE_CHECKING:  # brings torch
    from train.data.slide import Slide

LevelLabels = Mapping[str, np.ndarray | None]  # by level: (N, P) float32; None where it was not measured
SlideLabels = Mapping[str, LevelLabels]  # by slide id


def fine_labels(slide: "Slide", labels: LevelLabels) -> np.ndarray:
    """Return the expression (N, P) of the fine level; a slide without it has been refused before."""
    fine = labels[slide.fine.name]
    assert fine is not None  # mean_counts refuses slides without counts
    return fine


def read_labels(
    geometry: ArrayFile, level: str, panel: Genes, chosen: np.ndarray, config: NormaliseConfig
) -> np.ndarray | None:
    """Read the expression (N, p) of the columns `chosen` (p,) of a panel; None for a level that was not measured.

    It needs no features. The whole panel, over which the library may be, is held for a block of rows at a time.
    """
    if f"{level}/counts/indptr" not in geometry.names():
        return None
    genes = Genes(geometry.read("genes/id"), geometry.read("genes/name"))
    columns = columns_of(genes, panel.ids)
    labels = np.empty((geometry.spec(f"{level}/centres_um").rows, len(chosen)), dtype=np.float32)
    for rows, counts in read_count_blocks(geometry, level, len(genes)):
        labels[rows] = expression(counts, columns, config)[:, chosen]
    return labels

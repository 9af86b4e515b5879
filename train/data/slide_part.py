"""A slide seen as some of its fine rows, for whatever learns from slides: all of it works unchanged.

In: a slide, its labels, the blocks that are held out of it. Out: a `Slide` whose fine level has the learnt rows alone,
numbered anew, with the edges that it would have had if it had been extracted so; and labels of what is learnt from. The
context levels are whole, as what is seen around a learnt row; their labels are NaN wherever a square touches a block
or its margin.
"""

from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np
import torch
from scipy import sparse
from torch import Tensor

from cache.knn import knn_edges
from train.data.labels import LevelLabels, fine_labels
from train.data.slide import CPU, FeatureKind, LevelData, Slide
from train.data.tissue_blocks import TissueBlocks

# N rows of a level, n of them learnt from, P panel genes


class LevelPart(LevelData):
    """Some rows (n,), sorted, of a level; features are scaled by the statistics of the whole level."""

    def __init__(self, level: LevelData, rows: np.ndarray) -> None:
        vars(self).update(vars(level))  # its files, and what it holds on a device
        self._level, self._rows = level, rows
        self.centres_um = level.centres_um[rows]
        self.edges = knn_edges(self.centres_um, max(1, level.edges.shape[1]))

    def barcodes(self) -> np.ndarray:
        """Barcodes (n,)."""
        return np.asarray(self._level.barcodes()[self._rows])

    def pair(self, context: str) -> np.ndarray:
        """Return the row of the context level that each row is paired with, (n,) int32."""
        return np.asarray(self._level.pair(context)[self._rows])

    def features(self, kind: FeatureKind, rows: np.ndarray, *, view: int = 0, device: torch.device = CPU) -> Tensor:
        """Raw features of rows on a device."""
        return self._level.features(kind, self._rows[rows], view=view, device=device)

    def pixels(self, rows: np.ndarray) -> np.ndarray:
        """Patches of rows."""
        return self._level.pixels(self._rows[rows])

    def count_blocks(self, num_genes: int) -> Iterator[tuple[slice, sparse.csr_matrix]]:
        """Yield raw counts by blocks of rows."""
        for of_level, counts in self._level.count_blocks(num_genes):
            first, last = np.searchsorted(self._rows, (of_level.start, of_level.stop)).tolist()
            if first < last:
                yield slice(first, last), counts[self._rows[first:last] - of_level.start]

    def _scale_of(self, kind: FeatureKind) -> Callable[[Tensor], Tensor]:
        return self._level.fine_scale if kind == "fine" else self._level.scale


def learnt_part(slide: Slide, labels: LevelLabels, blocks: TissueBlocks) -> tuple[Slide, LevelLabels]:
    """Return what of a slide is learnt from beside held-out blocks, with its labels."""
    rows = np.flatnonzero(blocks.learnt(slide.fine.centres_um))
    part: dict[str, np.ndarray | None] = {slide.fine.name: fine_labels(slide, labels)[rows]}
    for name, level in slide.contexts.items():
        of_level, learnt = labels[name], blocks.learnt(level.centres_um, side_um=level.patch_um)
        part[name] = None if of_level is None else np.where(learnt[:, None], of_level, np.float32(np.nan))
    return replace(slide, fine=LevelPart(slide.fine, rows)), part

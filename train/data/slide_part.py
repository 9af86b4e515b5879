"""A slide seen as some of its fine rows, for whatever learns from slides: all of it works unchanged.

In: a slide, its labels, the blocks that are held out of it. Out: a `Slide` whose fine level has the learnt rows alone,
numbered anew, with the edges that it would have had if it had been extracted so; and labels of what is learnt from. The
context levels are whole, as what is seen around a learnt row; their labels are NaN wherever a square touches a block
or its margin.
"""

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import cached_property

import numpy as np
import torch
from scipy import sparse
from torch import Tensor

from cache.knn import knn_edges
from train.data.labels import LevelLabels, fine_labels
from train.data.slide import LevelData, Slide
from train.data.tissue_blocks import TissueBlocks

# N rows of a level, n of them learnt from, P panel genes


class LevelPart(LevelData):
    """Some rows (n,), sorted, of a level; features are scaled by the statistics of the whole level."""

    def __init__(self, level: LevelData, rows: np.ndarray) -> None:
        self._level, self._rows = level, rows
        self.name = level.name
        self.centres_um = level.centres_um[rows]
        self.edges = knn_edges(self.centres_um, max(1, level.edges.shape[1]))

    @property
    def width(self) -> int:
        """Raw feature width D."""
        return self._level.width

    @property
    def patch_um(self) -> float:
        """Side of a row's patch."""
        return self._level.patch_um

    @cached_property
    def scale(self) -> Callable[[Tensor], Tensor]:
        """What the whole level applies to its raw features."""
        return self._level.scale

    @property
    def has_tokens(self) -> bool:
        """Whether tokens were cached."""
        return self._level.has_tokens

    @property
    def num_views(self) -> int:
        """The number of symmetries of the square for which features were cached."""
        return self._level.num_views

    @property
    def measured(self) -> bool:
        """Whether the level has counts."""
        return self._level.measured

    def barcodes(self) -> np.ndarray:
        """Barcodes (n,)."""
        return np.asarray(self._level.barcodes()[self._rows])

    def pair(self, context: str) -> np.ndarray:
        """Return the row of the context level that each row is paired with, (n,) int32."""
        return np.asarray(self._level.pair(context)[self._rows])

    def pooled(self, rows: np.ndarray, *, view: int = 0) -> np.ndarray:
        """Raw pooled features of one view."""
        return self._level.pooled(self._rows[rows], view=view)

    def features(self, kind: str, rows: np.ndarray, *, view: int = 0, device: torch.device) -> Tensor:
        """Raw features of rows on a device."""
        return self._level.features(kind, self._rows[rows], view=view, device=device)

    def num_bytes(self, kind: str) -> int:
        """Bytes of one kind of features of the whole level, which is what is held."""
        return self._level.num_bytes(kind)

    def hold(self, kind: str, device: torch.device) -> None:
        """Copy one kind of the whole level's features to a device."""
        self._level.hold(kind, device)

    def pixels(self, rows: np.ndarray) -> np.ndarray:
        """Patches of rows."""
        return self._level.pixels(self._rows[rows])

    def count_blocks(self, num_genes: int) -> Iterator[tuple[slice, sparse.csr_matrix]]:
        """Yield raw counts by blocks of rows."""
        for of_level, counts in self._level.count_blocks(num_genes):
            first, last = np.searchsorted(self._rows, (of_level.start, of_level.stop)).tolist()
            if first < last:
                yield slice(first, last), counts[self._rows[first:last] - of_level.start]


def learnt_part(slide: Slide, labels: LevelLabels, blocks: TissueBlocks) -> tuple[Slide, LevelLabels]:
    """Return what of a slide is learnt from beside held-out blocks, with its labels."""
    rows = np.flatnonzero(blocks.learnt(slide.fine.centres_um))
    part: dict[str, np.ndarray | None] = {slide.fine.name: fine_labels(slide, labels)[rows]}
    for name, level in slide.contexts.items():
        of_level, learnt = labels[name], blocks.learnt(level.centres_um, side_um=level.patch_um)
        part[name] = None if of_level is None else np.where(learnt[:, None], of_level, np.float32(np.nan))
    return replace(slide, fine=LevelPart(slide.fine, rows)), part

"""Raw counts of the training slides, for a likelihood in the place of the squared error (`LossConfig.likelihood`).

In: training slides and the panel. Out: the counts, libraries and dispersions that `magnet_loss` needs of a batch.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from scipy import sparse

from magnet_core.errors import MagnetError
from magnet_core.expression import columns_of
from magnet_core.likelihood import estimate_dispersion
from magnet_core.losses import Labels
from magnet_core.records import Genes
from magnet_core.settings.normalise import NormaliseConfig
from train.data.slide import Slide
from train.data.subgraph import Batch

# N fine rows of a slide, P panel genes


@dataclass(frozen=True)
class RawCounts:
    """Counts (N, P) of the fine level and libraries (N,) by slide id; dispersion (P,); the scale of expression."""

    counts: Mapping[str, sparse.csr_matrix]
    libraries: Mapping[str, np.ndarray]
    dispersion: torch.Tensor
    scale: float

    @classmethod
    def of(cls, slides: Sequence[Slide], panel: Genes, config: NormaliseConfig) -> "RawCounts":
        """Read the counts of training slides, and estimate the dispersions from them."""
        if not config.log:
            raise MagnetError(
                "loss.likelihood",
                expected="log expression as what is predicted",
                found="data.normalise.log=false",
                remedy="set it to true, or loss.likelihood=mse",
            )
        read = {slide.slide_id: read_counts(slide, panel, config) for slide in slides}
        counts = {slide_id: slide_counts for slide_id, (slide_counts, _) in read.items()}
        libraries = {slide_id: slide_library for slide_id, (_, slide_library) in read.items()}
        dispersion = estimate_dispersion(list(counts.values()), list(libraries.values()))
        return cls(counts, libraries, torch.from_numpy(dispersion), config.scale)

    def labels_of(self, batch: Batch) -> Labels:
        """Return a batch's labels with its raw counts beside them."""
        slide_id, device = batch.slide.slide_id, batch.labels.fine.device
        counts = self.counts[slide_id][batch.rows].toarray().astype(np.float32)
        library = self.libraries[slide_id][batch.rows].astype(np.float32)
        return replace(
            batch.labels,
            counts=torch.from_numpy(counts).to(device),
            library=torch.from_numpy(library).to(device),
            dispersion=self.dispersion.to(device),
            scale=self.scale,
        )


def read_counts(slide: Slide, panel: Genes, config: NormaliseConfig) -> tuple[sparse.csr_matrix, np.ndarray]:
    """Return the raw counts (N, P) of a slide's fine level, 0 for unmeasured genes, and each row's library (N,).

    The library is the total that divided the row's expression: over the panel, or all genes; unscaled, it is the scale.
    """
    columns = columns_of(slide.genes, panel.ids)
    measured = np.flatnonzero(columns >= 0)
    chosen = sparse.csr_matrix(
        (np.ones(len(measured), np.float32), (columns[measured], measured)), shape=(len(slide.genes), len(columns))
    )
    blocks, totals = [], []
    for _, counts in slide.fine.count_blocks(len(slide.genes)):
        blocks.append((counts @ chosen).tocsr())
        totals.append(np.asarray(counts.sum(axis=1)).ravel())
    panel_counts = sparse.vstack(blocks, format="csr")
    if config.library == "none":
        return panel_counts, np.full(len(slide.fine), config.scale)
    return panel_counts, np.asarray(panel_counts.sum(axis=1)).ravel() if config.library == "panel" else np.concatenate(
        totals
    )

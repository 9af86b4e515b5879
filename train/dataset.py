"""One slide as stage two sees it: labels, pairing and edges in memory, pixels and features mapped from the store.

In: a store, a target, a gene panel. Out: `SlideData`, whose levels hand out rows. Nothing here opens a vendor's file.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from scipy import sparse

from cache.reader import ArrayFile
from cache.store import Store
from magnet_core.errors import MagnetError
from magnet_core.expression import NormaliseConfig, columns_of, expression
from magnet_core.levels import Target
from magnet_core.records import Genes
from train.config import DataConfig

# N rows of a level, k neighbours, T tokens, D features, p pixels, P panel genes


class LevelData:
    """One level of one slide, row by row from the store."""

    def __init__(self, name: str, geometry: ArrayFile, features: ArrayFile) -> None:
        self.name = name
        self._geometry = geometry
        self._features = features
        self.centres_um: np.ndarray = geometry.read(f"{name}/centres_um")
        self.edges: np.ndarray = geometry.read(f"{name}/edges")  # (N, k)

    def __len__(self) -> int:
        return len(self.centres_um)

    @property
    def width(self) -> int:
        """Raw feature width D."""
        return self._features.spec(f"{self.name}/pooled").shape[1]

    def barcodes(self) -> np.ndarray:
        """Barcodes (N,)."""
        return self._geometry.read(f"{self.name}/barcode")

    def pair(self, context: str) -> np.ndarray:
        """Row of the context level paired with each row, (N,) int32."""
        return self._geometry.read(f"{self.name}/pair/{context}")

    def pooled(self, rows: np.ndarray) -> np.ndarray:
        """Pooled features (n, D) float16."""
        return self._features.gather(f"{self.name}/pooled", rows)

    def tokens(self, rows: np.ndarray) -> np.ndarray:
        """Token features (n, T, D) float16."""
        return self._features.gather(f"{self.name}/tokens", rows)

    def pixels(self, rows: np.ndarray) -> np.ndarray:
        """Patches (n, p, p, 3) uint8."""
        return self._geometry.gather(f"{self.name}/pixels", rows)

    def counts(self, num_genes: int) -> sparse.csr_matrix | None:
        """Raw counts (N, G), or None where the level was not measured."""
        prefix = f"{self.name}/counts"
        if f"{prefix}/indptr" not in self._geometry.names():
            return None
        parts = [self._geometry.read(f"{prefix}/{part}") for part in ("values", "indices", "indptr")]
        return sparse.csr_matrix((parts[0], parts[1], parts[2]), shape=(len(self), num_genes))


@dataclass(frozen=True)
class Slide:
    """One slide of a store for one target: its fine level and its two context levels, before a panel is chosen."""

    slide_id: str
    patient: str
    target: Target
    genes: Genes
    fine: LevelData
    contexts: Mapping[str, LevelData]
    features_header: Mapping[str, Any]

    @cached_property
    def pairs(self) -> dict[str, np.ndarray]:
        """For each context level, the row paired with each fine row, (N,)."""
        return {name: self.fine.pair(name).astype(np.int64) for name in self.contexts}

    def mean_counts(self) -> np.ndarray:
        """Mean raw count of each gene over the fine rows, (G,)."""
        return np.asarray(_measured(self).mean(axis=0)).ravel()

    def labels(self, panel: Genes, config: NormaliseConfig) -> dict[str, np.ndarray | None]:
        """Normalised expression (N, P) of every level, None for a level that was not measured."""
        columns = columns_of(self.genes, panel.ids)
        counts = {level.name: level.counts(len(self.genes)) for level in (self.fine, *self.contexts.values())}
        return {name: None if raw is None else expression(raw, columns, config) for name, raw in counts.items()}


def open_slide_data(store: Store, slide_id: str, target: Target, config: DataConfig) -> Slide:
    """Open one slide for one target; a slide extracted without that target is an error that says how to add it."""
    geometry = store.geometry(slide_id)
    features = store.features(slide_id, config.backbone, config.settings_digest or None)
    missing = [level for level in target.levels if level not in geometry.header["levels"]]
    if missing:
        raise MagnetError(
            f"{config.store}: {slide_id}",
            expected=f"the levels of target {target.um} µm",
            found=f"no {', '.join(missing)}",
            remedy=f"extract with --targets {target.um}, or choose another --target",
        )
    return Slide(
        slide_id,
        geometry.header["patient"],
        target,
        Genes(geometry.read("genes/id"), geometry.read("genes/name")),
        LevelData(target.fine, geometry, features),
        {name: LevelData(name, geometry, features) for name in target.contexts},
        features.header,
    )


def _measured(slide: Slide) -> sparse.csr_matrix:
    counts = slide.fine.counts(len(slide.genes))
    if counts is None:
        raise MagnetError(
            f"slide '{slide.slide_id}'",
            expected="counts, to learn from or to be compared with",
            found="an H&E-only slide",
            remedy="leave it out of the folds; it can be predicted",
        )
    return counts

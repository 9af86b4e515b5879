"""One slide as stage two sees it: labels, pairing and edges in memory, pixels and features mapped from the store.

In: a store, a target, a gene panel. Out: `SlideData`, whose levels hand out rows. Nothing here opens a vendor's file.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from scipy import sparse
from torch import Tensor

from cache.reader import ArrayFile
from cache.store import Store
from magnet_core.errors import MagnetError
from magnet_core.expression import NormaliseConfig, columns_of, expression
from magnet_core.levels import Target, feature_name
from magnet_core.records import Genes
from magnet_core.symmetry import NUM_SYMMETRIES
from train.config import DataConfig

# N rows of a level, k neighbours, T tokens, D features, p pixels, P panel genes

_SCALE_ROWS = 4096  # evenly spaced rows are enough for a mean and a standard deviation
_SD_FLOOR = 1e-2  # of the mean sd: a feature that hardly varies is not blown up


@dataclass(frozen=True)
class FeatureScale:
    """Brings the features of one level of one slide to mean 0 and standard deviation 1, feature by feature.

    Stain and scanner shift the features of a whole slide; what is learnt on one patient then misses on the next. The
    statistics are of the slide's own cached features and need no counts, so that an unseen slide has its own too.
    """

    mean: Tensor  # (D,)
    sd: Tensor  # (D,)

    @classmethod
    def of(cls, pooled: np.ndarray) -> "FeatureScale":
        """Take the statistics of pooled features (N, D)."""
        values = torch.from_numpy(pooled.astype(np.float32))
        sd = values.std(dim=0, correction=0)
        return cls(values.mean(dim=0), sd + _SD_FLOOR * sd.mean() + 1e-6)

    def __call__(self, features: Tensor) -> Tensor:
        """Scale features (..., D) to float32, on their device."""
        return (features.float() - self.mean.to(features.device)) / self.sd.to(features.device)


class LevelData:
    """One level of one slide, row by row from the store."""

    def __init__(self, name: str, geometry: ArrayFile, features: ArrayFile, *, standardise: bool) -> None:
        self.name = name
        self._standardise = standardise
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

    @cached_property
    def scale(self) -> Callable[[Tensor], Tensor]:
        """What is applied to raw features (..., D) before they are learnt from: a `FeatureScale`, or a cast alone."""
        if not self._standardise:
            return Tensor.float
        rows = np.unique(np.linspace(0, len(self) - 1, min(len(self), _SCALE_ROWS)).astype(np.int64))
        return FeatureScale.of(self.pooled(rows))

    def barcodes(self) -> np.ndarray:
        """Barcodes (N,)."""
        return self._geometry.read(f"{self.name}/barcode")

    def pair(self, context: str) -> np.ndarray:
        """Row of the context level paired with each row, (N,) int32."""
        return self._geometry.read(f"{self.name}/pair/{context}")

    @property
    def num_views(self) -> int:
        """How many symmetries of the square the features were cached for: 1 or 8."""
        return NUM_SYMMETRIES if feature_name(self.name, "pooled", view=1) in self._features.names() else 1

    def pooled(self, rows: np.ndarray, *, view: int = 0) -> np.ndarray:
        """Raw pooled features (n, D) float16 of one view."""
        return self._features.gather(feature_name(self.name, "pooled", view=view), rows)

    def tokens(self, rows: np.ndarray, *, view: int = 0) -> np.ndarray:
        """Raw token features (n, T, D) float16 of one view."""
        return self._features.gather(feature_name(self.name, "tokens", view=view), rows)

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
        LevelData(target.fine, geometry, features, standardise=config.standardise),
        {name: LevelData(name, geometry, features, standardise=config.standardise) for name in target.contexts},
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

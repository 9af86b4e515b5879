"""One slide as stage two sees it: labels, pairing and edges in memory, pixels and features mapped from the store.

In: a store, a target, a gene panel. Out: `SlideData`, whose levels hand out rows. Nothing here opens a vendor's file.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any, Literal

import numpy as np
import torch
from scipy import sparse
from torch import Tensor

from cache.reader import ArrayFile
from cache.staging import staged
from cache.store import Store
from magnet_core.backbones.encoder import with_class_token
from magnet_core.backbones.own_square import OwnSquare
from magnet_core.device import to_device
from magnet_core.errors import MagnetError
from magnet_core.expression import columns_of, expression
from magnet_core.grid import Around, tiles_around
from magnet_core.levels import CENTRE, Target, feature_name, own_square_um
from magnet_core.panel import LogStatistics
from magnet_core.records import Genes
from magnet_core.sampled_rows import scale_rows
from magnet_core.settings.normalise import NormaliseConfig
from magnet_core.symmetry import NUM_SYMMETRIES
from train.data.count_blocks import read_count_blocks
from train.data.fold_choice import no_pixels
from train.settings.fit import DataConfig

# N rows of a level, n of them, k neighbours, T tokens, D pooled features, O features of an own square, F fine features,
# p pixels, P panel genes

# pooled (n, D); tokens (n, T, D); own (n, O), what the own square shows; fine (n, F), pooled and own side by side
FeatureKind = Literal["pooled", "tokens", "own", "fine"]
CPU = torch.device("cpu")

_SD_FLOOR = 1e-2  # part of the mean sd: a feature that hardly varies is not scaled up further


@dataclass(frozen=True)
class FeatureScale:
    """Brings the features of one level of one slide to mean 0 and standard deviation 1, feature by feature.

    Stain and scanner shift the features of a whole slide; what is learnt on one patient then misses on the next. The
    statistics are of the slide's own cached features and need no counts, so that an unseen slide has its own too.
    """

    mean: Tensor  # (D,)
    sd: Tensor  # (D,)

    @classmethod
    def of(cls, features: Tensor) -> "FeatureScale":
        """Take the statistics of features (N, D)."""
        values = features.float().cpu()
        sd = values.std(dim=0, correction=0)
        return cls(values.mean(dim=0), sd + _SD_FLOOR * sd.mean() + 1e-6)

    def __call__(self, features: Tensor) -> Tensor:
        """Scale features (..., D) to float32, on their device."""
        return (features.float() - self.mean.to(features.device)) / self.sd.to(features.device)


class LevelData:
    """One level of one slide, row by row from the store."""

    def __init__(self, name: str, geometry: ArrayFile, features: ArrayFile, *, config: DataConfig) -> None:
        self.name = name
        self._standardise = config.standardise
        self._geometry = geometry
        self._features = features
        self._held: dict[str, Tensor] = {}
        self.has_own = config.own and f"{name}/own" in features.names()
        self.centres_um: np.ndarray = geometry.read(f"{name}/centres_um")
        self.edges: np.ndarray = geometry.read(f"{name}/edges")  # (N, k)

    def __len__(self) -> int:
        return len(self.centres_um)

    @property
    def width(self) -> int:
        """Raw feature width D."""
        return self._features.spec(f"{self.name}/pooled").shape[1]

    @property
    def patch_um(self) -> float:
        """Side of a patch; of a tiled level, the distance from one tile to the next."""
        return float(self._geometry.header["levels"][self.name]["patch_um"])

    @property
    def geometry_header(self) -> dict[str, Any]:
        """Header of the slide's geometry: µm/px, image, and the settings it was laid with."""
        return self._geometry.header

    @cached_property
    def own_square(self) -> OwnSquare | None:
        """The square whose features stand beside the pooled ones, as an encoder that is trained has to average it."""
        side_um = own_square_um(self.name, patch_um=self.patch_um)
        if not self.has_own or side_um is None:
            return None
        return OwnSquare(side_um / self.patch_um, self._features.header["settings"]["own"])

    @property
    def fine_kinds(self) -> tuple[FeatureKind, ...]:
        """What fine features are made of, as arrays of the store."""
        return ("pooled", "own") if self.has_own else ("pooled",)

    @property
    def fine_width(self) -> int:
        """Width F of fine features: of the pooled feature and, where it is kept, of that of the own square."""
        return sum(self._features.spec(f"{self.name}/{kind}").shape[1] for kind in self.fine_kinds)

    @cached_property
    def scale(self) -> Callable[[Tensor], Tensor]:
        """What is applied to raw features (..., D) before they are learnt from: a `FeatureScale`, or a cast alone."""
        return self._scale_of("pooled")

    @cached_property
    def fine_scale(self) -> Callable[[Tensor], Tensor]:
        """The same for fine features (..., F)."""
        return self._scale_of("fine")

    def _scale_of(self, kind: FeatureKind) -> Callable[[Tensor], Tensor]:
        if not self._standardise:
            return Tensor.float
        with torch.inference_mode(False):  # kept for trainings, though a prediction may be the first to need it
            return FeatureScale.of(self.features(kind, scale_rows(len(self))))

    def barcodes(self) -> np.ndarray:
        """Barcodes (N,)."""
        return self._geometry.read(f"{self.name}/barcode")

    def pair(self, context: str) -> np.ndarray:
        """Return the row of the context level that each row is paired with, (N,) int32."""
        return self._geometry.read(f"{self.name}/pair/{context}")

    @property
    def has_tokens(self) -> bool:
        """Whether tokens were cached; levels that serve as a context of some target have them."""
        return f"{self.name}/tokens" in self._features.names()

    @property
    def num_views(self) -> int:
        """The number of symmetries of the square for which features were cached: 1 or 8."""
        return NUM_SYMMETRIES if feature_name(self.name, "pooled", view=1) in self._features.names() else 1

    def features(self, kind: FeatureKind, rows: np.ndarray, *, view: int = 0, device: torch.device = CPU) -> Tensor:
        """Raw features of rows on a device, float16, see `FeatureKind`.

        They come from where `hold` copied them to, and otherwise from the store. In a store without views, every view
        is the first.
        """
        stored = partial(self._stored_features, rows=rows, view=view, device=device)
        if kind == "fine":
            return torch.cat([stored(part) for part in self.fine_kinds], dim=1)
        features = stored(kind)
        if kind == "tokens" and features.shape[2] < self.width:
            return with_class_token(features, stored("pooled"))
        return features

    def _stored_features(self, kind: str, rows: np.ndarray, *, view: int, device: torch.device) -> Tensor:
        name = feature_name(self.name, kind, view=view % self.num_views)
        held = self._held.get(name)
        if held is not None:
            return held[torch.from_numpy(rows).to(held.device)].to(device)
        return to_device(torch.from_numpy(self._features.gather(name, rows)), device)

    def num_bytes(self, kind: str) -> int:
        """Bytes of one kind of features in all views."""
        return self.num_views * self._features.spec(f"{self.name}/{kind}").nbytes

    def hold(self, kind: str, device: torch.device) -> None:
        """Copy one kind of features, in all views, to a device, and keep them there."""
        for view in range(self.num_views):
            name = feature_name(self.name, kind, view=view)
            if name in self._held and self._held[name].device == device:
                continue
            self._held[name] = torch.from_numpy(self._features.read(name)).to(device)

    def pixels(self, rows: np.ndarray) -> np.ndarray:
        """Patches (n, p, p, 3) uint8; a store without pixels is an error that says how to add them."""
        if f"{self.name}/pixels" not in self._geometry.names():
            raise no_pixels(self._geometry.path.parent)
        return self._geometry.gather(f"{self.name}/pixels", rows)

    @property
    def measured(self) -> bool:
        """Whether the level has counts."""
        return f"{self.name}/counts/indptr" in self._geometry.names()

    def count_blocks(self, num_genes: int) -> Iterator[tuple[slice, sparse.csr_matrix]]:
        """Yield raw counts (n, G) of a measured level by blocks of rows."""
        return read_count_blocks(self._geometry, self.name, num_genes)


@dataclass(frozen=True)
class Slide:
    """One slide of a store for one target: its fine level and its two context levels, before a panel is chosen.

    blends  whether fine rows see the tiles around them, or the one they are paired with alone
    """

    slide_id: str
    patient: str
    target: Target
    genes: Genes
    fine: LevelData
    contexts: Mapping[str, LevelData]
    features_header: Mapping[str, Any]
    blends: bool = True

    @cached_property
    def pairs(self) -> dict[str, np.ndarray]:
        """Return by context level the row (N,) that each fine row is paired with."""
        return {name: self.fine.pair(name).astype(np.int64) for name in self.contexts}

    @cached_property
    def around(self) -> dict[str, Around]:
        """Return by context level the rows that each fine row sees of it, and what they weigh."""
        return {name: self._around(level, self.pairs[name]) for name, level in self.contexts.items()}

    def _around(self, level: LevelData, pairs: np.ndarray) -> Around:
        if not self.blends or level.name == CENTRE:  # which a spot has its own of
            return Around.paired(pairs)
        return tiles_around(self.fine.centres_um, level.centres_um, side_um=level.patch_um, paired=pairs)

    def mean_counts(self) -> np.ndarray:
        """Mean raw count of each gene over the fine rows, (G,)."""
        total = np.zeros(len(self.genes))
        for counts in self._counts():
            total += np.bincount(counts.indices, weights=counts.data, minlength=len(self.genes))
        return total / len(self.fine)

    def log_statistics(self) -> LogStatistics:
        """Statistics of log(1 + count) of each gene over the fine rows."""
        sums = np.zeros((3, len(self.genes)))
        for counts in self._counts():
            logs = np.log1p(counts.data)
            for total, values in zip(sums, (logs, logs**2, counts.data > 0), strict=True):
                total += np.bincount(counts.indices, weights=values, minlength=len(self.genes))
        return LogStatistics(len(self.fine), *sums)

    def _counts(self) -> Iterator[sparse.csr_matrix]:
        """Iterate over raw counts (n, G) of the fine level by blocks; a slide without counts is an error."""
        if not self.fine.measured:
            raise MagnetError(
                f"slide '{self.slide_id}'",
                expected="counts, to learn from or to be compared with",
                found="an H&E-only slide",
                remedy="leave it out of the folds; it can be predicted",
            )
        return (counts for _, counts in self.fine.count_blocks(len(self.genes)))

    def labels(self, panel: Genes, config: NormaliseConfig) -> dict[str, np.ndarray | None]:
        """Normalised expression (N, P) of every level, None for a level that was not measured."""
        return {level.name: self._labels_of(level, panel, config) for level in (self.fine, *self.contexts.values())}

    def _labels_of(self, level: LevelData, panel: Genes, config: NormaliseConfig) -> np.ndarray | None:
        if not level.measured:
            return None
        columns = columns_of(self.genes, panel.ids)
        labels = np.empty((len(level), len(columns)), dtype=np.float32)
        for rows, counts in level.count_blocks(len(self.genes)):
            labels[rows] = expression(counts, columns, config)
        return labels


def open_slide_data(store: Store, slide_id: str, target: Target, config: DataConfig) -> Slide:
    """Open one slide for one target; a slide extracted without that target is an error that says how to add it.

    All blocks that the target may read are compared with their checksums once, so that damaged values are never used.
    """
    geometry = staged(store.geometry(slide_id))
    features = staged(store.features(slide_id, config.backbone, config.settings_digest or None))
    require_levels(target, geometry, features, where=f"{config.store}: {slide_id}")
    return Slide(
        slide_id,
        store.patient(slide_id),
        target,
        Genes(geometry.read("genes/id"), geometry.read("genes/name")),
        LevelData(target.fine, geometry, features, config=config),
        {name: LevelData(name, geometry, features, config=config) for name in target.contexts},
        features.header,
        config.contexts == "blended",
    )


def require_levels(target: Target, geometry: ArrayFile, *features: ArrayFile, where: str) -> None:
    """Refuse a slide without the levels of a target, or with damaged arrays of them."""
    missing = [level for level in target.levels if level not in geometry.header["levels"]]
    if missing:
        raise MagnetError(
            where,
            expected=f"the levels of target {target.um} µm",
            found=f"no {', '.join(missing)}",
            remedy=f"extract with --targets {target.um}, or choose another --target; a slide of spots has 55 alone",
        )
    for file in (geometry, *features):
        file.require_intact([name for name in file.names() if name.partition("/")[0] in ("genes", *target.levels)])

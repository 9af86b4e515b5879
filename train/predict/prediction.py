"""A prediction of one slide, as all writers of files take it: values by row and gene, and all that they are of."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from cache.picture import Picture
from magnet_core.levels import SPOT
from magnet_core.records import Genes
from train.data.slide import Slide
from train.learning.trained_run import TrainedRun

# N rows, P genes of the file


@dataclass(frozen=True)
class SlidePrediction:
    """What one run, or an ensemble, predicts of one slide.

    values     (N, P) float32, rows as in the store, columns as in `genes`, some of the run's panel
    header     of the slide's geometry file: µm/px, settings, image
    run        the run, or the first of an ensemble
    source     further facts for uns['magnet_hd']: the run's folder, the fingerprint of its weights
    measured   (N, P) labels of the same rows, None where they are not wanted or not there
    deviation  (N, P) standard deviation between the members of an ensemble, None of a single run
    picture    the slide, small, None where the store has none
    """

    values: np.ndarray
    genes: Genes
    slide: Slide
    header: Mapping[str, Any]
    run: TrainedRun
    source: Mapping[str, Any]
    measured: np.ndarray | None = None
    deviation: np.ndarray | None = None
    picture: Picture | None = None

    @property
    def side_um(self) -> float:
        """Side of a bin; of a spot, that of its patch, which is all that its platforms have in common."""
        fine = self.slide.fine.name
        return self.header["levels"][fine]["patch_um"] if fine == SPOT else float(self.slide.target.um)

    @property
    def mpp(self) -> float:
        """µm per pixel of the full-resolution image."""
        return float(self.header["mpp"])

    @property
    def centres_px(self) -> np.ndarray:
        """Centres (N, 2) of all rows, (x, y) in pixels of the full-resolution image."""
        return self.slide.fine.centres_um / self.mpp

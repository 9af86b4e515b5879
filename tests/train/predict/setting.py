"""Predictions that need no store: rows on a lattice that is turned and shifted against its image, or on none."""

from types import SimpleNamespace
from typing import cast

import numpy as np

from cache.picture import Picture
from magnet_core.levels import TARGETS
from magnet_core.records import Genes
from train.data.slide import Slide
from train.learning.trained_run import TrainedRun
from train.predict.prediction import SlidePrediction

MPP = 0.5


def prediction_at(
    cells: np.ndarray,
    values: np.ndarray,
    *,
    um: int = 8,
    turn_deg: float = 0.0,
    origin_um: tuple[float, float] = (0.0, 0.0),
    named: bool = True,
    size_um: tuple[float, float] | None = None,
    deviation: np.ndarray | None = None,
) -> SlidePrediction:
    """Values (N, P) of rows at cells (N, 2), row and column; `named` says whether barcodes tell them.

    `size_um` is width and height of the slide, of which there then is a picture at 2 µm/px.
    """
    target = TARGETS[um]
    side_um = 56 if um == 55 else um
    angle = np.deg2rad(turn_deg)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    centres_um = (cells[:, ::-1] + 0.5) * side_um @ turn.T + origin_um
    barcodes = [f"s_{um:03d}um_{row:05d}_{column:05d}-1" if named else f"ACGT{row}x{column}-1" for row, column in cells]
    fine = SimpleNamespace(name=target.fine, centres_um=centres_um, barcodes=lambda: np.array(barcodes))
    names = np.array([f"GENE{number}" for number in range(values.shape[1])])
    header = {"mpp": MPP, "image": "S1.tif", "levels": {target.fine: {"patch_um": 56}}}
    picture = None
    if size_um is not None:
        width, height = (round(along / 2) for along in size_um)
        picture = Picture(np.full((height, width, 3), 200, np.uint8), 2.0)
    return SlidePrediction(
        values.astype(np.float32),
        Genes(np.char.add("ENSG", names), names),
        cast(Slide, SimpleNamespace(slide_id="S1", target=target, fine=fine)),
        header,
        cast(TrainedRun, None),
        {},
        deviation=deviation,
        picture=picture,
    )


def block(rows: int, columns: int) -> np.ndarray:
    """All cells (rows × columns, 2) of a block."""
    return np.argwhere(np.ones((rows, columns)))

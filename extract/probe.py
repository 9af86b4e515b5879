"""How long a run would take, from a short probe of decoding and of encoding. Serves `extract run --dry-run`.

In: a slide, its levels, the encoder. Out: seconds. Decoding is timed on a few neighbouring squares of 128 µm and counts
by squares, encoding on a few patches of each size and counts by patches.
"""

import time
from collections.abc import Sequence

import numpy as np
import torch

from extract.config import RunConfig
from extract.levels import BAND_UM, Level
from extract.stream import PatchRequest, stream_patches
from magnet_core.backbones.encoder import Encoder
from magnet_core.slides import ScaledSlide

# N rows of a level, S squares of 128 µm, n patches, p pixels

PROBE_SQUARES = 6  # squares that are decoded
PROBE_PATCHES = 16  # patches of each size that are encoded, at most


class Probe:
    """How long decoding and encoding take here, measured on a few patches; `patches` counts them."""

    def __init__(self, encoder: Encoder, config: RunConfig) -> None:
        self._encoder = encoder
        self._config = config
        self._encode_seconds: dict[int, float] = {}  # by side of a patch in pixels
        self.patches = 0

    def measure(self, slide: ScaledSlide, levels: Sequence[Level]) -> tuple[float, float]:
        """Estimate the seconds of decoding a slide, and of encoding all its patches."""
        squares = occupied_squares(levels)
        probed = _neighbouring(squares)
        requests = {
            level.name: PatchRequest(level.centres_um, level.patch_um, _lies_in(level.centres_um, probed))
            for level in levels
        }
        slide.read(0, 0, 1, 1)  # a flat image is decoded whole at the first window
        patches: dict[str, list[np.ndarray]] = {}
        start = time.perf_counter()
        for name, _, run in stream_patches(slide, requests, workers=self._config.workers):
            patches.setdefault(name, []).append(run)
        decode_seconds = (time.perf_counter() - start) / len(probed) * len(squares)
        for runs in patches.values():
            self._measure_encoder(np.concatenate(runs)[:PROBE_PATCHES])
        return decode_seconds, sum(self._seconds_of(requests[level.name].side_px) * len(level) for level in levels)

    def _measure_encoder(self, patches: np.ndarray) -> None:
        """Time the encoder on patches (n, p, p, 3), once for each size."""
        side_px = patches.shape[1]
        if side_px in self._encode_seconds:
            return
        device, grid = next(self._encoder.parameters()).device, self._config.embedding.token_grid
        with torch.inference_mode():
            self._encoder(torch.from_numpy(patches[:1]).to(device), grid).pooled.cpu()  # the first call is slow
            start = time.perf_counter()
            self._encoder(torch.from_numpy(patches).to(device), grid).pooled.cpu()
        self._encode_seconds[side_px] = (time.perf_counter() - start) / len(patches)
        self.patches += len(patches)

    def _seconds_of(self, side_px: int) -> float:
        """Seconds a patch of this size takes; a size that was not probed counts by its area."""
        if side_px in self._encode_seconds:
            return self._encode_seconds[side_px]
        return float(np.mean([s * (side_px / side) ** 2 for side, s in self._encode_seconds.items()]))


def occupied_squares(levels: Sequence[Level]) -> np.ndarray:
    """Squares of 128 µm that hold a row of any level, (S, 2) int64 column and row, in reading order."""
    cells = np.concatenate([_squares_of(level.centres_um) for level in levels])
    return np.unique(cells[:, ::-1], axis=0)[:, ::-1]


def _squares_of(centres_um: np.ndarray) -> np.ndarray:
    return np.floor(centres_um / BAND_UM).astype(np.int64)


def _neighbouring(squares: np.ndarray) -> np.ndarray:
    """Return some squares side by side from the middle of the slide."""
    middle = len(squares) // 2
    row: np.ndarray = squares[squares[:, 1] == squares[middle, 1]]
    first = max(0, len(row) // 2 - PROBE_SQUARES // 2)
    return row[first : first + PROBE_SQUARES]


def _lies_in(centres_um: np.ndarray, squares: np.ndarray) -> np.ndarray:
    """Mask (N,) of the centres that lie in one of the squares (S, 2)."""
    inside: np.ndarray = (_squares_of(centres_um)[:, None] == squares[None]).all(axis=2).any(axis=1)
    return inside

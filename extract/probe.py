"""How long a run would take, from a short probe of decoding and of encoding. Serves `extract run --dry-run`.

In: a slide, its levels, the encoder. Out: seconds, from the fastest of a few timings to the slowest. Decoding is timed
on a few neighbouring squares of 128 µm, at several places, and counts by squares; encoding on a few patches of each
size, several times, and counts by patches.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from extract.config import RunConfig
from extract.levels import BAND_UM, Level
from extract.stream import PatchRequest, stream_patches
from magnet_core.backbones.encoder import Encoder
from magnet_core.device import autocast
from magnet_core.slides import ScaledSlide

# N rows of a level, S squares of 128 µm, n patches, p pixels

PROBE_SQUARES = 6  # squares that are decoded at a place
PROBE_PATCHES = 16  # patches of each size that are encoded, at most
PLACES = (0.25, 0.5, 0.75)  # of the occupied squares in reading order, around which decoding is timed
ENCODINGS = 3  # timings of each size of patch


@dataclass(frozen=True)
class Span:
    """Seconds that something takes: as fast, and as slow, as it was measured."""

    low: float = 0.0
    high: float = 0.0

    @classmethod
    def of(cls, timings: Sequence[float]) -> "Span":
        """Return the span of some timings."""
        return cls(min(timings), max(timings))

    def __add__(self, other: "Span") -> "Span":
        return Span(self.low + other.low, self.high + other.high)

    def __mul__(self, times: float) -> "Span":
        return Span(self.low * times, self.high * times)

    def beside(self, other: "Span") -> "Span":
        """Return what both take side by side: the longer of the two."""
        return Span(max(self.low, other.low), max(self.high, other.high))

    def in_minutes(self) -> str:
        """Format as text."""
        return f"{self.low / 60:.1f} to {self.high / 60:.1f} min"


class Probe:
    """How long decoding and encoding take here, measured on a few patches; `patches` counts them."""

    def __init__(self, encoder: Encoder, config: RunConfig) -> None:
        self._encoder = encoder
        self._config = config
        self._encode_seconds: dict[int, Span] = {}  # by side of a patch in pixels
        self.patches = 0

    def measure(self, slide: ScaledSlide, levels: Sequence[Level]) -> tuple[Span, Span]:
        """Estimate the seconds of decoding a slide, and of encoding all its patches."""
        squares = occupied_squares(levels)
        slide.read(0, 0, 1, 1)  # a flat image is decoded whole at the first window
        patches: dict[str, list[np.ndarray]] = {}
        timings = []
        for place in PLACES:
            probed = _neighbouring(squares, place)
            wanted = {level.name: _lies_in(level.centres_um, probed) for level in levels}
            requests = {
                level.name: PatchRequest(level.centres_um, level.patch_um, wanted[level.name], slide.mpp)
                for level in levels
            }
            start = time.perf_counter()
            for name, _, run in stream_patches(slide, requests, workers=self._config.workers):
                patches.setdefault(name, []).append(run)
            timings.append((time.perf_counter() - start) / len(probed) * len(squares))
        for runs in patches.values():
            self._measure_encoder(np.concatenate(runs)[:PROBE_PATCHES])
        encoding = [self._seconds_of(requests[level.name].side_px) * len(level) for level in levels]
        return Span.of(timings), sum(encoding, Span())

    def _measure_encoder(self, patches: np.ndarray) -> None:
        """Time the encoder on patches (n, p, p, 3), once for each size."""
        side_px = patches.shape[1]
        if side_px in self._encode_seconds:
            return
        device, embedding = next(self._encoder.parameters()).device, self._config.embedding
        timings = []
        with torch.inference_mode(), autocast(embedding.precision, device):
            self._encoder(torch.from_numpy(patches[:1]).to(device), embedding.token_grid).pooled.cpu()  # which is slow
            for _ in range(ENCODINGS):
                start = time.perf_counter()
                self._encoder(torch.from_numpy(patches).to(device), embedding.token_grid).pooled.cpu()
                timings.append((time.perf_counter() - start) / len(patches))
        self._encode_seconds[side_px] = Span.of(timings)
        self.patches += len(patches)

    def _seconds_of(self, side_px: int) -> Span:
        """Seconds a patch of this size takes; a size that was not probed counts by its area."""
        if side_px in self._encode_seconds:
            return self._encode_seconds[side_px]
        by_area = [seconds * (side_px / side) ** 2 for side, seconds in self._encode_seconds.items()]
        return sum(by_area, Span()) * (1 / len(by_area))


def occupied_squares(levels: Sequence[Level]) -> np.ndarray:
    """Squares of 128 µm that hold a row of any level, (S, 2) int64 column and row, in reading order."""
    cells = np.concatenate([_squares_of(level.centres_um) for level in levels])
    return np.unique(cells[:, ::-1], axis=0)[:, ::-1]


def _squares_of(centres_um: np.ndarray) -> np.ndarray:
    return np.floor(centres_um / BAND_UM).astype(np.int64)


def _neighbouring(squares: np.ndarray, place: float) -> np.ndarray:
    """Return some squares side by side, at a place between 0, the top of the slide, and 1."""
    row: np.ndarray = squares[squares[:, 1] == squares[int(len(squares) * place), 1]]
    first = max(0, len(row) // 2 - PROBE_SQUARES // 2)
    return row[first : first + PROBE_SQUARES]


def _lies_in(centres_um: np.ndarray, squares: np.ndarray) -> np.ndarray:
    """Mask (N,) of the centres that lie in one of the squares (S, 2)."""
    inside: np.ndarray = (_squares_of(centres_um)[:, None] == squares[None]).all(axis=2).any(axis=1)
    return inside

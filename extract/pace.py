"""How much is encoded at a time and when it is saved: a run that is killed loses half a minute of work at most.

In: an encoder, the size of its patches, a clock. Out: batches that take seconds, on any device; and the moments to save
rows of blocks that are not full yet. The clock is handed in, so that a test need not wait.
"""

import time
from collections.abc import Callable

import torch

from extract.config import EmbeddingConfig
from magnet_core.backbones.encoder import Encoder
from magnet_core.backbones.own_square import OwnSquare
from magnet_core.device import autocast

Clock = Callable[[], float]  # seconds

SAVE_SECONDS = 20.0  # from one saving to the next, or one batch where that takes longer
BATCH_SECONDS = 20.0  # a batch that would take longer is cut
CUT = 8  # what it is divided by, until it fits
CALLS = 3  # of the encoder before it counts as slow: the first call is, and so is any beside other work


class Pace:
    """How many patches the encoder is given at a time, after it was timed on one; `clock` is for all that is timed."""

    def __init__(self, encoder: Encoder, config: EmbeddingConfig, *, clock: Clock = time.monotonic) -> None:
        self.clock = clock
        self._encoder = encoder
        self._config = config
        self._sizes: dict[tuple[int, int], int] = {}  # by the most that are asked for, and pixels a side

    def batch_size(self, most: int, side_px: int, own: OwnSquare | None) -> int:
        """Return `most`, or fewer where so many patches of `side_px` would take long."""
        if (most, side_px) not in self._sizes:
            self._sizes[most, side_px] = self._measured_size(most, side_px, own)
        return self._sizes[most, side_px]

    def _measured_size(self, most: int, side_px: int, own: OwnSquare | None) -> int:
        fastest = float("inf")
        for _ in range(CALLS):
            fastest = min(fastest, self._seconds_a_patch(side_px, own))
            if most * fastest <= BATCH_SECONDS:
                return most
        size = most
        while size > 1 and size * fastest > BATCH_SECONDS:
            size = max(1, size // CUT)
        return size

    def _seconds_a_patch(self, side_px: int, own: OwnSquare | None) -> float:
        """Time one patch in all views, without what `--compile` makes of the encoder, which has other shapes."""
        device = next(self._encoder.parameters()).device
        patch = torch.zeros(1, side_px, side_px, 3, dtype=torch.uint8, device=device)
        start = self.clock()
        with torch.inference_mode(), autocast(self._config.precision, device):
            self._encoder.forward(patch, self._config.token_grid, own=own).pooled.cpu()
        return (self.clock() - start) * self._config.views


class Saves:
    """Saves what is begun every so often; it is told of each batch, so that it can save before the next one."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._saves: list[Callable[[], None]] = []
        self._last_save = self._last_batch = clock()

    def add(self, save: Callable[[], None]) -> None:
        """Add what saves the rows of one level."""
        self._saves.append(save)

    def batch_done(self) -> None:
        """Save, if another batch like this one would make it too long since the last time."""
        now = self._clock()
        took, self._last_batch = now - self._last_batch, now
        if now - self._last_save + took > SAVE_SECONDS:
            for save in self._saves:
                save()
            self._last_save = now

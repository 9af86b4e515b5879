"""Where streamed patches go: bin pixels into a slide's geometry file, features into its backbone file.

In: runs of patches of one level, in row order. Out: row blocks, each written in a transaction of its own, so that a
stopped run resumes at the block where it stopped. Features, which take long to make, are saved before their block is
full; it then resumes within the block. The pixels of such a block are cut again.
"""

import math
from collections.abc import Sequence
from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch

from cache.schema import default_block_rows
from cache.writer import ArrayWriter
from extract.background import BackgroundWriter
from extract.blocks import Regrouper, batches_in_blocks, rows_in
from extract.config import EmbeddingConfig
from extract.levels import Level
from extract.pace import Saves
from magnet_core.backbones.encoder import Encoder
from magnet_core.backbones.own_square import OwnSquare
from magnet_core.device import autocast, to_device
from magnet_core.errors import MagnetError
from magnet_core.levels import feature_name
from magnet_core.symmetry import turn

# N rows of a level, n rows of a batch, T tokens, D pooled features, O features of an own square, C of a token,
# p pixels


class Sink(Protocol):
    """Takes the patches of one level. `wanted` (N,) bool: the rows it still lacks."""

    wanted: np.ndarray

    def add(self, first_row: int, patches: np.ndarray) -> None:
        """Take rows `first_row, first_row + 1, …` as (n, p, p, 3) uint8."""


class PixelSink:
    """Stores the patches themselves, (N, p, p, 3) uint8, for the level whose encoder is fine-tuned."""

    def __init__(self, writer: ArrayWriter, level: Level, *, side_px: int, background: BackgroundWriter) -> None:
        self._writer = writer
        self._background = background
        self._name = f"{level.name}/pixels"
        writer.declare(self._name, (len(level), side_px, side_px, 3), np.uint8)
        blocks = _missing(writer, self._name)
        self._block_of_start = {rows.start: block for block, rows in blocks.items()}
        self._regrouper = Regrouper(list(blocks.values()))
        self.wanted = rows_in(list(blocks.values()), len(level))

    def add(self, first_row: int, patches: np.ndarray) -> None:
        """Take a run of patches; write each block that it completes."""
        for rows, block in self._regrouper.add(first_row, patches):
            self._background.put_blocks(self._writer, self._block_of_start[rows.start], {self._name: block})


class FeatureSink:
    """Encodes patches and stores raw features: in float16 those of the frozen encoder, in float32 of a fine-tuned one.

    pooled (N, D) for every level; tokens (N, T, C) for context levels, the keys of the cross-attention; own (N, O) for
    levels that are predicted, what the row's own square shows. Views beyond the first, of the patch turned, are
    stored under `<level>/view<number>/`.
    """

    def __init__(
        self,
        writer: ArrayWriter,
        level: Level,
        encoder: Encoder,
        *,
        background: BackgroundWriter,
        config: EmbeddingConfig,
        batch_size: int,
        tokens: bool,
        own: OwnSquare | None,
        saves: Saves,
        dtype: npt.DTypeLike = np.float16,
    ) -> None:
        self._dtype = np.dtype(dtype)
        self._writer = writer
        self._background = background
        self._level = level
        self._encoder = encoder
        self._config = config
        self._own = own
        shapes: dict[str, tuple[int, ...]] = {"pooled": (len(level), encoder.width)}
        if tokens:
            shapes["tokens"] = (len(level), *encoder.token_shape(config.token_grid))
        if own is not None:
            shapes["own"] = (len(level), encoder.own_width(own))
        self._kinds = tuple(shapes)
        widest = max(math.prod(shape[1:]) for shape in shapes.values()) * self._dtype.itemsize
        missing: dict[int, slice] = {}
        self._blocks: dict[str, Regrouper] = {}
        for view in range(config.views):
            for kind, shape in shapes.items():
                name = feature_name(level.name, kind, view=view)
                writer.declare(name, shape, self._dtype, block_rows=default_block_rows(widest))
                missing |= _missing(writer, name)
                self._blocks[name] = Regrouper([])
        blocks = [missing[block] for block in sorted(missing)]
        self._blocks = {name: Regrouper(blocks) for name in self._blocks}
        self._block_of_start = {rows.start: block for block, rows in missing.items()}
        self._saved = self._take_up(blocks)
        if blocks:
            blocks = [slice(blocks[0].start + self._saved, blocks[0].stop), *blocks[1:]]
            batch_size = min(batch_size, writer.keep_choice(f"{level.name}/batch", batch_size))
        self._batches = Regrouper(batches_in_blocks(blocks, batch_size))
        self.wanted = rows_in(blocks, len(level))
        self._saves = saves
        saves.add(self.save)

    def _take_up(self, blocks: Sequence[slice]) -> int:
        """Take the rows of the first block that an earlier run has saved; return how many there are."""
        if not blocks:
            return 0
        first_row = blocks[0].start
        saved = {name: self._writer.saved_rows(name, self._block_of_start[first_row]) for name in self._blocks}
        count = min(map(len, saved.values()))
        for name, rows in saved.items():
            list(self._blocks[name].add(first_row, rows[:count]))
        return count

    def add(self, first_row: int, patches: np.ndarray) -> None:
        """Take a run of patches; encode each batch and write each block that it completes."""
        for rows, batch in self._batches.add(first_row, patches):
            whole: dict[str, np.ndarray] = {}
            for name, values in self._encode(batch).items():
                for block_rows, block in self._blocks[name].add(rows.start, values):
                    whole[name], first_of_block = block, block_rows.start
            if whole:
                self._background.put_blocks(self._writer, self._block_of_start[first_of_block], whole)
                self._saved = 0
            self._saves.batch_done()

    def save(self) -> None:
        """Save the rows of a block that is not full, as far as they are not saved yet."""
        begun = {name: of_block for name, blocks in self._blocks.items() if (of_block := blocks.begun()) is not None}
        new = {name: values[self._saved :] for name, (_, values) in begun.items()}
        if new and (count := len(next(iter(new.values())))):
            rows, _ = next(iter(begun.values()))
            self._background.save_rows(self._writer, self._block_of_start[rows.start], self._saved, new)
            self._saved += count

    def _encode(self, batch: np.ndarray) -> dict[str, np.ndarray]:
        """Return the features of a batch in every view, by array name."""
        device = next(self._encoder.parameters()).device
        kept = torch.float16 if self._dtype == np.float16 else torch.float32
        patches = to_device(torch.from_numpy(batch), device)
        values: dict[str, np.ndarray] = {}
        with torch.inference_mode(), autocast(self._config.precision, device):
            for view in range(self._config.views):
                features = self._encoder(turn(patches, view), self._config.token_grid, own=self._own)
                for kind in self._kinds:
                    name = feature_name(self._level.name, kind, view=view)
                    values[name] = getattr(features, kind).to(kept).cpu().numpy()
        if not all(np.isfinite(array).all() for array in values.values()):
            raise MagnetError(
                f"backbone '{self._encoder.spec.name}', level '{self._level.name}'",
                expected=f"features within the range of {self._dtype} (±{np.finfo(self._dtype).max:,.5g})",
                found="infinite or undefined values",
                remedy="check the weights: an encoder with pre-trained weights stays far below",
            )
        return values


class SampledSink:
    """Hands the patches of some rows of a level to a sink that takes those rows alone, `rows` (n,), sorted."""

    def __init__(self, sink: Sink, rows: np.ndarray, num_rows: int) -> None:
        self._sink = sink
        self._rows = rows
        self.wanted = np.zeros(num_rows, dtype=bool)
        self.wanted[rows[sink.wanted]] = True

    def add(self, first_row: int, patches: np.ndarray) -> None:
        """Take a run of patches of the whole level."""
        first, stop = np.searchsorted(self._rows, [first_row, first_row + len(patches)])
        if stop > first:
            self._sink.add(int(first), patches[self._rows[first:stop] - first_row])


def _missing(writer: ArrayWriter, name: str) -> dict[int, slice]:
    return {block: writer.block_rows(name, block) for block in writer.missing_blocks(name)}


def pending(sinks: Sequence[Sink], num_rows: int) -> np.ndarray:
    """Return a mask (N,) bool of the rows that at least one of the sinks still lacks."""
    is_pending = np.zeros(num_rows, dtype=bool)
    for sink in sinks:
        is_pending |= sink.wanted
    return is_pending

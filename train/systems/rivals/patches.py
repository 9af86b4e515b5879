"""Features of fine patches for the rival systems: cached ones, or those of an encoder that learns along.

In: pieces, rows of a slide each. Out: pooled features (n, D) and tokens (n, T, D), scaled slide by slide as MagNet's.
"""

from collections.abc import Sequence
from functools import partial

import numpy as np
import torch
from torch import Tensor, nn

from magnet_core.backbones.encoder import Encoder, with_class_token
from magnet_core.backbones.tuning import tune
from magnet_core.device import autocast, to_device
from magnet_core.settings.tuning import TuningConfig
from magnet_core.symmetry import turn
from train.data.rows import Rows
from train.data.slide import Slide
from train.learning.setting import Setting
from train.model.build import rebuild_encoder
from train.model.gradient_cache import encode_in_parts

# n rows of all pieces, T tokens, D features, P panel genes


class PatchEncoder(nn.Module):
    """From fine rows to features; an encoder is a part of it, and is trained, only where `finetune` is set."""

    def __init__(self, slide: Slide, setting: Setting) -> None:
        super().__init__()
        self.encoder: Encoder | None = None
        if setting.finetune:
            self.encoder = rebuild_encoder(slide.features_header)
            tune(self.encoder, TuningConfig(mode="full"))
        self.width = slide.fine.width
        self._compute = setting.compute
        self._device = setting.device
        self.to(setting.device)

    def pooled(self, pieces: Sequence[Rows], *, view: int = 0) -> Tensor:
        """Pooled features (n, D) float32 of the pieces' rows, one after the other, seen in one of the 8 symmetries.

        Of a store without views, and without an encoder of our own, every view is the first.
        """
        return torch.cat([self._scaled(piece, self._raw(piece, "pooled", view, token_grid=1)) for piece in pieces])

    def tokens(self, pieces: Sequence[Rows], *, token_grid: int, view: int = 0) -> Tensor:
        """Tokens (n, T, D) float32 of the pieces' rows.

        An encoder of our own gives T = token_grid². From the store come the tokens that were cached of the level, or
        the pooled feature as the one token where there are none, as of bins.
        """
        return torch.cat([self._scaled(piece, self._raw(piece, "tokens", view, token_grid)) for piece in pieces])

    def pooled_and_tokens(self, pieces: Sequence[Rows], *, token_grid: int) -> Tensor:
        """Pooled features, then tokens, (n, 1 + T, D) float32 of the pieces' rows, each patch encoded once."""
        return torch.cat([self._scaled(piece, self._raw(piece, "both", 0, token_grid)) for piece in pieces])

    def num_views(self, slide: Slide) -> int:
        """How many symmetries of a patch can be told apart: 8 with an encoder or cached views, else 1."""
        return 8 if self.encoder is not None else slide.fine.num_views

    def _scaled(self, piece: Rows, raw: Tensor) -> Tensor:
        return piece.slide.fine.scale(raw)

    def _raw(self, piece: Rows, kind: str, view: int, token_grid: int) -> Tensor:
        fine = piece.slide.fine
        if self.encoder is None:
            return self._cached(piece, kind, view)
        patches = to_device(torch.from_numpy(fine.pixels(piece.rows)), self._device)

        def encode(part: Tensor) -> Tensor:
            assert self.encoder is not None
            with autocast(self._compute.precision, self._device):
                features = self.encoder(turn(part, view), token_grid=token_grid)
            pooled, tokens = features.pooled.float(), features.tokens.float()
            return _of_kind(kind, pooled, with_class_token(tokens, pooled))

        return encode_in_parts(encode, patches, micro_batch=self._compute.micro_batch)

    def _cached(self, piece: Rows, kind: str, view: int) -> Tensor:
        fine = piece.slide.fine
        stored = partial(fine.features, rows=piece.rows, view=view, device=self._device)
        if kind == "tokens" and fine.has_tokens:
            return stored("tokens")
        pooled = stored("pooled")
        return _of_kind(kind, pooled, stored("tokens") if kind == "both" and fine.has_tokens else pooled[:, None])


def _of_kind(kind: str, pooled: Tensor, tokens: Tensor) -> Tensor:
    """Pooled (n, D), tokens (n, T, D), or both, the pooled feature first (n, 1 + T, D)."""
    if kind == "both":
        return torch.cat([pooled[:, None], tokens], dim=1)
    return pooled if kind == "pooled" else tokens


def mixed_batches(slides: Sequence[Slide], batch_size: int, rng: np.random.Generator) -> list[list[Rows]]:
    """Mix the fine rows of all slides and cut them into batches of equal size, to within one row."""
    sizes = [len(slide.fine) for slide in slides]
    slide_of = np.repeat(np.arange(len(slides)), sizes)
    row_of = np.concatenate([np.arange(size) for size in sizes])
    order = rng.permutation(len(row_of))
    batches = []
    for part in np.array_split(order, -(-len(order) // batch_size)):
        owners = slide_of[part]
        batches.append([Rows(slides[s], np.sort(row_of[part[owners == s]])) for s in np.unique(owners)])
    return batches


def labels_of(pieces: Sequence[Rows], fine_by_slide: dict[str, np.ndarray], device: torch.device) -> Tensor:
    """Labels (n, P) of the pieces' rows, one after the other; `fine_by_slide` holds (N, P) by slide id."""
    parts = [fine_by_slide[piece.slide.slide_id][piece.rows] for piece in pieces]
    return to_device(torch.from_numpy(np.concatenate(parts)), device)

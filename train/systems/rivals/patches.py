"""Features of fine patches for the rival systems: cached ones, or those of an encoder that learns along.

In: pieces, rows of a slide each. Out: fine features (n, F) and tokens (n, T, F), scaled slide by slide as MagNet's.
Where the store keeps what a row's own square shows, all have it beside the features of the patch, as MagNet has.
"""

from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
import torch
from torch import Tensor, nn

from magnet_core.backbones.encoder import Encoder, Features, with_class_token
from magnet_core.backbones.tuning import tune
from magnet_core.device import autocast, to_device
from magnet_core.settings.tuning import TuningConfig
from magnet_core.symmetry import turn
from train.data.rows import Rows
from train.data.slide import Slide
from train.learning.setting import Setting
from train.model.build import rebuild_encoder
from train.model.gradient_cache import encode_in_parts

# n rows of all pieces, T tokens, D pooled features, F fine features, P panel genes


class PatchEncoder(nn.Module):
    """From fine rows to features; an encoder is a part of it, and is trained, only where `finetune` is set."""

    def __init__(self, slide: Slide, setting: Setting) -> None:
        super().__init__()
        self.encoder: Encoder | None = None
        if setting.finetune:
            self.encoder = rebuild_encoder(slide.features_header)
            tune(self.encoder, TuningConfig(mode="full"))
        self.width = slide.fine.fine_width
        self._own = slide.fine.own_square
        self._compute = setting.compute
        self._device = setting.device
        self.to(setting.device)

    def fine(self, pieces: Sequence[Rows], *, view: int = 0) -> Tensor:
        """Fine features (n, F) float32 of the pieces' rows, one after the other, seen in one of the 8 symmetries.

        Of a store without views, and without an encoder of our own, every view is the first.
        """
        if self.encoder is not None:
            return self._scaled(pieces, lambda features: features.fine, view, token_grid=1)
        levels = [(piece.slide.fine, piece.rows) for piece in pieces]  # whose tokens need not be read
        return torch.cat(
            [fine.fine_scale(fine.features("fine", rows, view=view, device=self._device)) for fine, rows in levels]
        )

    def tokens(self, pieces: Sequence[Rows], *, token_grid: int, view: int = 0) -> Tensor:
        """Tokens (n, T, F) float32 of the pieces' rows.

        An encoder of our own gives T = token_grid². From the store come the tokens that were cached of the level, or
        the pooled feature as the one token where there are none, as of bins.
        """
        return self._scaled(pieces, _wide_tokens, view, token_grid=token_grid)

    def fine_and_tokens(self, pieces: Sequence[Rows], *, token_grid: int) -> Tensor:
        """Fine features, then tokens, (n, 1 + T, F) float32 of the pieces' rows, each patch encoded once."""
        return self._scaled(pieces, _fine_and_tokens, 0, token_grid=token_grid)

    def num_views(self, slide: Slide) -> int:
        """How many symmetries of a patch can be told apart: 8 with an encoder or cached views, else 1."""
        return 8 if self.encoder is not None else slide.fine.num_views

    def _scaled(
        self, pieces: Sequence[Rows], choose: Callable[[Features], Tensor], view: int, *, token_grid: int
    ) -> Tensor:
        """Return what is chosen of the pieces' features, scaled slide by slide."""
        read = self._cached if self.encoder is None else partial(self._encoded, token_grid=token_grid)
        return torch.cat([piece.slide.fine.fine_scale(read(piece, choose, view)) for piece in pieces])

    def _encoded(self, piece: Rows, choose: Callable[[Features], Tensor], view: int, *, token_grid: int) -> Tensor:
        patches = to_device(torch.from_numpy(piece.slide.fine.pixels(piece.rows)), self._device)

        def encode(part: Tensor) -> Tensor:
            assert self.encoder is not None
            with autocast(self._compute.precision, self._device):
                features: Features = self.encoder(turn(part, view), token_grid=token_grid, own=self._own)
            own = None if features.own is None else features.own.float()
            return choose(Features(features.pooled.float(), features.tokens.float(), own))

        return encode_in_parts(encode, patches, micro_batch=self._compute.micro_batch)

    def _cached(self, piece: Rows, choose: Callable[[Features], Tensor], view: int) -> Tensor:
        fine = piece.slide.fine
        stored = partial(fine.features, rows=piece.rows, view=view, device=self._device)
        pooled = stored("pooled")
        tokens = stored("tokens") if fine.has_tokens else pooled[:, None]
        return choose(Features(pooled, tokens, stored("own") if fine.has_own else None))


def _wide_tokens(features: Features) -> Tensor:
    """Tokens (n, T, F): beside each the class token that its encoder keeps apart, and the row's own square."""
    tokens = with_class_token(features.tokens, features.pooled)
    if features.own is None:
        return tokens
    return torch.cat([tokens, features.own[:, None].expand(-1, tokens.shape[1], -1)], dim=2)


def _fine_and_tokens(features: Features) -> Tensor:
    """Fine features, then tokens, (n, 1 + T, F)."""
    return torch.cat([features.fine[:, None], _wide_tokens(features)], dim=1)


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

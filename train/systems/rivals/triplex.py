"""TRIPLEX: a patch, what surrounds it, and the whole slide, fused by cross-attention (Chung et al., CVPR 2024).

In: batches of fine rows of one slide, in three views. Out: normalised expression (N, P).

target     the tokens of the row's own patch: of the store, or of an encoder that is trained where fine-tuning is asked
           for; the pooled feature as the one token where no others were cached
neighbour  the cached tokens of the region of 128 µm paired with the row, where the original has a square of 5 × 5
           patches; a transformer with a learnt bias for each offset of one token from another
global     the pooled features of all spots of the slide, the fine rows themselves when these are spots; a transformer
           with a depth-wise convolution on the grid of spots after its first layer, which tells where they lie. A
           row takes the token of its spot. A slide of too many spots is cut into windows that do not see each other
fusion     the row's global token attends to its target tokens and to its neighbour tokens; both results are added

Each view has a linear head and the fusion has one, which predicts. Fusion teaches the heads of the views: in their
distillation term its prediction is held fixed. A row's prediction does not depend on the rows it is predicted with.
Ours: 50 epochs (the original stops early, after 200 at most); the biases of the heads start at the training mean.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from math import isqrt

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from magnet_core.device import to_device
from magnet_core.errors import MagnetError
from magnet_core.levels import REGION, SPOT
from train.data.rows import Rows
from train.data.slide import LevelData, Slide
from train.data.training_side import TrainingSide
from train.learning.progress import Progress
from train.learning.setting import Setting
from train.settings.rivals import TriplexConfig
from train.systems.rivals.learning import chunk_rows, falling, learn, mean_head, predict_chunks, seeded, trainable
from train.systems.rivals.patches import PatchEncoder, labels_of
from train.systems.rivals.windows import Window, level_windows

# N fine rows of a slide, n rows of a batch, S spots of a window, R regions of a batch, T tokens of a patch,
# g tokens a side, H heads, D width, P panel genes

_LARGEST_GRID = 256  # spots a side of the map that the convolution runs on, 14 mm of 56 µm spots


class Block(nn.Module):
    """One layer of a transformer, normalised before each of its two parts."""

    def __init__(self, config: TriplexConfig) -> None:
        super().__init__()
        width = config.width
        self.num_heads = config.heads
        self.norm = nn.LayerNorm(width)
        self.query, self.key, self.value, self.out = (nn.Linear(width, width) for _ in range(4))
        self.dropout = nn.Dropout(config.dropout)
        self.mlp = nn.Sequential(
            nn.LayerNorm(width),
            nn.Linear(width, config.mlp),
            nn.GELU(),
            nn.Dropout(config.dropout),
            nn.Linear(config.mlp, width),
            nn.Dropout(config.dropout),
        )

    def forward(self, nodes: Tensor, context: Tensor | None = None, *, bias: Tensor | None = None) -> Tensor:
        """Let nodes (n, T, D) attend to a context (n, T', D) of norm one, or to each other; bias (H, T, T')."""
        queries = self.norm(nodes)
        keys = queries if context is None else context
        q, k, v = (
            part.unflatten(2, (self.num_heads, -1)).transpose(1, 2)  # (n,T,D) -> (n,T,H,D/H) -> (n,H,T,D/H)
            for part in (self.query(queries), self.key(keys), self.value(keys))
        )
        mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=bias)
        nodes = nodes + self.dropout(self.out(mixed.transpose(1, 2).flatten(2)))  # (n,H,T,D/H) -> (n,T,D)
        result: Tensor = nodes + self.mlp(nodes)
        return result


class RelativeBias(nn.Module):
    """A learnt number for each head and each offset, in rows and columns, of one token of a g × g grid from another."""

    def __init__(self, grid: int, num_heads: int) -> None:
        super().__init__()
        self.table = nn.Parameter(0.02 * torch.randn((2 * grid - 1) ** 2, num_heads))
        row, column = torch.arange(grid**2) // grid, torch.arange(grid**2) % grid
        rows_apart = row[:, None] - row + grid - 1
        self.index: Tensor
        self.register_buffer(
            "index", rows_apart * (2 * grid - 1) + column[:, None] - column + grid - 1, persistent=False
        )

    def forward(self) -> Tensor:
        """Return the bias (H, T, T) of each query, second axis, on each key."""
        return self.table[self.index].permute(2, 0, 1)  # (T,T,H) -> (H,T,T)


class NeighbourView(nn.Module):
    """A transformer over the tokens of a region; each layer has a relative bias of its own."""

    def __init__(self, config: TriplexConfig, *, inputs: int, grid: int) -> None:
        super().__init__()
        self.project = nn.Linear(inputs, config.width)
        self.layers = nn.ModuleList(Block(config) for _ in range(config.neighbour_layers))
        self.biases = nn.ModuleList(RelativeBias(grid, config.heads) for _ in range(config.neighbour_layers))
        self.norm = nn.LayerNorm(config.width)

    def forward(self, tokens: Tensor) -> Tensor:
        """Return tokens (R, T, D) of region tokens (R, T, inputs)."""
        nodes = self.project(tokens)
        for layer, bias in zip(self.layers, self.biases, strict=True):
            nodes = layer(nodes, bias=bias())
        result: Tensor = self.norm(nodes)
        return result


class GridEncoding(nn.Module):
    """Tells spots where they lie: a 3 × 3 depth-wise convolution over their map, zero where there is no spot."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(width, width, 3, padding=1, groups=width)

    def forward(self, spots: Tensor, positions: Tensor) -> Tensor:
        """Add to spots (S, D) at positions (S, 2) the convolution there; spots of one position show their mean."""
        columns, rows = (positions.amax(dim=0) + 1).tolist()
        cell = positions[:, 1] * columns + positions[:, 0]
        sums = spots.new_zeros(rows * columns, spots.shape[1]).index_add(0, cell, spots)
        counts = torch.bincount(cell, minlength=rows * columns).clamp(min=1)
        dense = (sums / counts[:, None]).T.unflatten(1, (rows, columns))  # (cells,D) -> (D,cells) -> (D,rows,columns)
        encoded = self.convolution(dense[None])[0].flatten(1).T  # (D,rows,columns) -> (cells,D)
        result: Tensor = spots + encoded[cell]
        return result


class GlobalView(nn.Module):
    """A transformer over the spots of a slide, or of a window of it."""

    def __init__(self, config: TriplexConfig, *, inputs: int) -> None:
        super().__init__()
        self.project = nn.Linear(inputs, config.width)
        self.layers = nn.ModuleList(Block(config) for _ in range(config.global_layers))
        self.encoding = GridEncoding(config.width)
        self.norm = nn.LayerNorm(config.width)

    def forward(self, spots: Tensor, positions: Tensor) -> Tensor:
        """Return tokens (S, D) of pooled features (S, inputs) at positions (S, 2)."""
        nodes = self.project(spots)
        for depth, layer in enumerate(self.layers):
            nodes = layer(nodes[None])[0]  # (S,D) -> (1,S,D) -> (S,D)
            if depth == 0:
                nodes = self.encoding(nodes, positions)
        result: Tensor = self.norm(nodes)
        return result


class TriplexNet(nn.Module):
    """The three views, their fusion and the four heads; `inputs` are feature widths of target, region and spot."""

    def __init__(self, config: TriplexConfig, inputs: tuple[int, int, int], *, region_grid: int, mean: Tensor) -> None:
        super().__init__()
        target, region, spot = inputs
        self.target = nn.Sequential(nn.Linear(target, config.width), nn.LayerNorm(config.width))
        self.neighbour = NeighbourView(config, inputs=region, grid=region_grid)
        self.whole = GlobalView(config, inputs=spot)
        self.over_target = nn.ModuleList(Block(config) for _ in range(config.fusion_layers))
        self.over_neighbours = nn.ModuleList(Block(config) for _ in range(config.fusion_layers))
        self.norm = nn.LayerNorm(config.width)
        self.heads = nn.ModuleList(mean_head(config.width, mean) for _ in range(4))

    def forward(self, target: Tensor, regions: Tensor, region_of: Tensor, global_tokens: Tensor) -> Tensor:
        """Predict (4, n, P): fusion, target, neighbour and global head.

        target (n, T, inputs), regions (R, T', inputs), region_of (n,) among them, global_tokens (n, D) of `whole`.
        """
        own, around = self.target(target), self.neighbour(regions)[region_of]
        query = global_tokens[:, None]
        from_own, from_around = query, query
        for layer in self.over_target:
            from_own = layer(from_own, own)
        for layer in self.over_neighbours:
            from_around = layer(from_around, around)
        fused = self.norm((from_own + from_around)[:, 0])
        views = (fused, own.mean(dim=1), around.mean(dim=1), global_tokens)
        return torch.stack([head(view) for head, view in zip(self.heads, views, strict=True)])


def triplex_loss(predictions: Tensor, labels: Tensor, *, distil: float) -> Tensor:
    """MSE of the fusion, and for each view (1 - distil) MSE to the labels + distil MSE to the fusion, held fixed.

    predictions (4, n, P), the fusion's first; labels (n, P).
    """
    fusion, views = predictions[0], predictions[1:]
    loss = F.mse_loss(fusion, labels)
    for view in views:
        loss = loss + (1 - distil) * F.mse_loss(view, labels) + distil * F.mse_loss(view, fusion.detach())
    return loss


@dataclass(frozen=True)
class _Global:
    """Spots of a slide in windows: of each, the window it is in; of each fine row, its spot (N,)."""

    level: LevelData
    windows: Sequence[Window]
    spot_of: np.ndarray

    @classmethod
    def of(cls, slide: Slide, config: TriplexConfig) -> "_Global":
        fine = slide.fine.name == SPOT
        level = slide.fine if fine else slide.contexts[SPOT]
        windows = level_windows(level, window=config.global_window, positions=_LARGEST_GRID)
        return cls(level, windows, np.arange(len(level)) if fine else slide.pairs[SPOT])


@dataclass(frozen=True)
class _Batch:
    """Fine rows (n,) of a slide whose spots are all in one window."""

    piece: Rows
    level: LevelData
    window: Window
    place: np.ndarray  # (n,) of each row's spot in the window


class Triplex:
    """TRIPLEX as one of the compared systems."""

    def __init__(self, config: TriplexConfig, setting: Setting) -> None:
        self._config = config
        self._setting = setting
        self.encoder: PatchEncoder
        self.net: TriplexNet

    def fit(self, training: TrainingSide) -> Progress:
        """Train for a fixed number of epochs."""
        config, setting, learnt = self._config, self._setting, training.learnt
        labels = learnt.fine_by_slide()
        views = [_Global.of(slide, config) for slide in learnt.slides]
        batches_of = partial(_batches, learnt.slides, views, config.batch_size)
        with seeded(setting):
            self._build(learnt)
            modules = nn.ModuleList([self.encoder, self.net])
            optimiser = torch.optim.AdamW(trainable(modules), lr=config.lr)

            def loss_of(batch: _Batch) -> Tensor:
                tokens = self._global_tokens(batch.level, batch.window)[_index(batch.place, setting.device)]
                truth = labels_of([batch.piece], labels, setting.device)
                return triplex_loss(self._predict(batch.piece, tokens), truth, distil=config.distil)

            return learn(
                modules, batches_of, loss_of,
                optimiser=optimiser, course=config, setting=setting, side=training, predict=self.predict,
                schedule=falling(optimiser, config, steps_of_epoch=len(batches_of(np.random.default_rng(0)))),
            )  # fmt: skip

    def predict(self, slide: Slide) -> np.ndarray:
        """Return (N, P); the tokens of the slide's spots are computed once."""
        view, device = _Global.of(slide, self._config), self._setting.device
        with torch.inference_mode():
            tokens = torch.empty(len(view.level), self._config.width, device=device)
            for window in view.windows:
                tokens[_index(window.rows, device)] = self._global_tokens(view.level, window)
        return predict_chunks(
            slide,
            lambda rows: self._predict(Rows(slide, rows), tokens[_index(view.spot_of[rows], device)])[0],
            rows=chunk_rows(self._setting),
        )

    def _build(self, training: TrainingSide) -> None:
        """Build the modules for the features of the training slides; weights are drawn from the global seed."""
        setting, slide = self._setting, training.slides[0]
        region = slide.contexts[REGION]
        num_tokens = region.features("tokens", np.arange(1), device=torch.device("cpu")).shape[1]
        region_grid = isqrt(num_tokens)
        if region_grid**2 != num_tokens:
            raise MagnetError(
                "triplex", expected="region tokens on a square grid", found=f"{num_tokens}", remedy="extract them again"
            )
        self.encoder = PatchEncoder(slide, setting)
        inputs = (slide.fine.fine_width, region.width, _Global.of(slide, self._config).level.width)
        mean = torch.from_numpy(training.mean_fine())
        self.net = TriplexNet(self._config, inputs, region_grid=region_grid, mean=mean).to(setting.device)

    def _global_tokens(self, level: LevelData, window: Window) -> Tensor:
        """Tokens (S, D) of a window's spots."""
        device = self._setting.device
        features = level.scale(level.features("pooled", window.rows, device=device))
        result: Tensor = self.net.whole(features, _index(window.positions, device))
        return result

    def _predict(self, piece: Rows, global_tokens: Tensor) -> Tensor:
        """Predict (4, n, P) of fine rows with the global tokens (n, D) of their spots."""
        device, level = self._setting.device, piece.slide.contexts[REGION]
        regions, region_of = np.unique(piece.slide.pairs[REGION][piece.rows], return_inverse=True)
        result: Tensor = self.net(
            self.encoder.tokens([piece], token_grid=self._config.token_grid),
            level.scale(level.features("tokens", regions, device=device)),
            _index(region_of, device),
            global_tokens,
        )
        return result


def _batches(
    slides: Sequence[Slide], views: Sequence[_Global], batch_size: int, rng: np.random.Generator
) -> list[_Batch]:
    """Cut the rows of each slide, window by window of its spots, into random batches, and mix these."""
    batches = []
    for slide, view in zip(slides, views, strict=True):
        for window in view.windows:
            place = np.searchsorted(window.rows, view.spot_of).clip(max=len(window.rows) - 1)
            rows = rng.permutation(np.flatnonzero(window.rows[place] == view.spot_of))
            for part in np.array_split(rows, max(1, -(-len(rows) // batch_size))):
                if len(part):
                    piece = Rows(slide, np.sort(part))
                    batches.append(_Batch(piece, view.level, window, place[piece.rows]))
    return [batches[index] for index in rng.permutation(len(batches))]


def _index(values: np.ndarray, device: torch.device) -> Tensor:
    return to_device(torch.from_numpy(values), device)

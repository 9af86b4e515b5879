"""HisToGene: the patches of a slide are one sequence of a vision transformer (Pang et al. 2021).

In: windows of a slide's fine rows; the original takes whole slides of a few hundred spots. Out: normalised expression
(N, P). A row's prediction depends on the other rows of its window, and windows depend on the slide alone.
With the encoder frozen the linear layer that reads a patch reads its cached feature. The original has no encoder: when
fine-tuned, the layer reads the pixels, averaged to `pixel_side` a side, so that every target gives as many.
Ours: the head's bias starts at the training mean; the original's starts at random.
"""

from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from magnet_core.device import to_device
from magnet_core.errors import MagnetError
from train.baselines.base import Setting, Training
from train.baselines.learning import learn, trainable
from train.baselines.patches import PatchEncoder, Piece
from train.baselines.windows import (
    SlideWindow,
    fine_windows,
    predict_windows,
    shuffled,
    window_labels,
    window_pixels,
)
from train.dataset import Slide

# N fine rows of a slide, n rows of a window, I inputs of a row, D width, P panel genes


@dataclass(frozen=True)
class HisToGeneConfig:
    """Published settings.

    window      rows of a window at most: 24 × 24 bins
    positions   rows of the tables of x and of y embeddings
    mlp         width inside a layer
    pixel_side  pixels that the linear layer reads, a side, where it reads pixels
    """

    epochs: int = 100
    lr: float = 1e-5
    window: int = 576
    positions: int = 64
    width: int = 1024
    depth: int = 8
    heads: int = 16
    mlp: int = 2048
    dropout: float = 0.1
    pixel_side: int = 112

    def __post_init__(self) -> None:
        positive = ("epochs", "lr", "window", "width", "depth", "heads", "mlp", "pixel_side")
        checks = {name: (getattr(self, name) > 0, "a positive number") for name in positive}
        checks["positions"] = (self.positions > 1, "2 or more")
        checks["dropout"] = (0 <= self.dropout < 1, "0 or more, below 1")
        for name, (fits, expected) in checks.items():
            if not fits:
                raise _refused(name, expected=expected, found=getattr(self, name))
        if self.width % self.heads:
            raise _refused("width", expected=f"a multiple of heads={self.heads}", found=self.width)


def _refused(name: str, *, expected: str, found: object) -> MagnetError:
    return MagnetError(f"histogene.{name}", expected=expected, found=str(found), remedy="change the setting")


class HisToGeneNet(nn.Module):
    """The transformer over one window."""

    def __init__(self, config: HisToGeneConfig, *, inputs: int, mean: Tensor) -> None:
        super().__init__()
        self.patch = nn.Linear(inputs, config.width)
        self.x_embedding = nn.Embedding(config.positions, config.width)
        self.y_embedding = nn.Embedding(config.positions, config.width)
        self.layers = nn.Sequential(
            *(
                nn.TransformerEncoderLayer(
                    config.width,
                    config.heads,
                    dim_feedforward=config.mlp,
                    dropout=config.dropout,
                    activation="gelu",
                    batch_first=True,
                    norm_first=True,
                )
                for _ in range(config.depth)
            )
        )
        self.norm = nn.LayerNorm(config.width)
        self.head = nn.Linear(config.width, len(mean))
        with torch.no_grad():
            self.head.bias.copy_(mean)

    def forward(self, patches: Tensor, positions: Tensor) -> Tensor:
        """Predict (n, P) from patches (n, I) at positions (n, 2)."""
        nodes = self.patch(patches) + self.x_embedding(positions[:, 0]) + self.y_embedding(positions[:, 1])
        nodes = self.layers(nodes[None])[0]  # (n,D) -> (1,n,D) -> (n,D)
        return self.head(self.norm(nodes))


class HisToGene:
    """HisToGene as one of the compared systems."""

    def __init__(self, config: HisToGeneConfig, setting: Setting) -> None:
        self._config = config
        self._setting = setting

    def fit(self, training: Training) -> None:
        """Train for a fixed number of epochs, a step a window."""
        setting, config = self._setting, self._config
        labels = {slide.slide_id: training.fine(slide) for slide in training.slides}
        windows = fine_windows(training.slides, window=config.window, positions=config.positions)
        with torch.random.fork_rng(devices=[setting.device] if setting.device.type == "cuda" else []):
            torch.manual_seed(setting.seed)
            self._patches = None if setting.finetune else PatchEncoder(training.slides[0], setting)
            inputs = self._patches.width if self._patches else 3 * config.pixel_side**2
            mean = torch.from_numpy(training.all_fine().mean(axis=0))
            self.net = HisToGeneNet(config, inputs=inputs, mean=mean).to(setting.device)
            learn(
                self.net,
                partial(shuffled, windows),
                lambda item: F.mse_loss(self._predict(item), window_labels(item, labels, setting.device)),
                optimiser=torch.optim.Adam(trainable([self.net]), lr=config.lr),
                epochs=config.epochs,
                setting=setting,
            )

    def predict(self, slide: Slide) -> np.ndarray:
        """Return (N, P), window by window."""
        windows = fine_windows([slide], window=self._config.window, positions=self._config.positions)
        return predict_windows(windows, self._predict)

    def _predict(self, item: SlideWindow) -> Tensor:
        device = self._setting.device
        if self._patches is None:
            patches = window_pixels(item, side=self._config.pixel_side, device=device).flatten(1)
        else:
            patches = self._patches.pooled([Piece(item.slide, item.window.rows)])
        return self.net(patches, to_device(torch.from_numpy(item.window.positions), device))

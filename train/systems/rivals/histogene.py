"""HisToGene: the patches of a slide are one sequence of a vision transformer (Pang et al. 2021).

In: windows of a slide's fine rows; the original takes whole slides of a few hundred spots. Out: normalised expression
(N, P). A row's prediction depends on the other rows of its window, and windows depend on the slide alone.
With the encoder frozen the linear layer that reads a patch reads its cached feature. The original has no encoder: when
fine-tuned, the layer reads the pixels, averaged to `pixel_side` a side, so that every target gives as many.
Ours: the head's bias starts at the training mean; the original's starts at random.
"""

from functools import partial

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from magnet_core.device import to_device
from train.data.slide import Slide
from train.data.training_side import TrainingSide
from train.learning.progress import Progress
from train.learning.setting import Setting
from train.settings.rivals import HisToGeneConfig
from train.systems.rivals.learning import learn, mean_head, seeded, trainable
from train.systems.rivals.patches import labels_of
from train.systems.rivals.transformer import PositionEmbedding, transformer_layers
from train.systems.rivals.windows import WindowRows, fine_windows, predict_windows, shuffled, window_inputs

# N fine rows of a slide, n rows of a window, I inputs of a row, D width, P panel genes


class HisToGeneNet(nn.Module):
    """The transformer over one window."""

    def __init__(self, config: HisToGeneConfig, *, inputs: int, mean: Tensor) -> None:
        super().__init__()
        self.patch = nn.Linear(inputs, config.width)
        self.position = PositionEmbedding(config.positions, config.width)
        self.layers = transformer_layers(config)
        self.norm = nn.LayerNorm(config.width)
        self.head = mean_head(config.width, mean)

    def forward(self, patches: Tensor, positions: Tensor) -> Tensor:
        """Predict (n, P) from patches (n, I) at positions (n, 2)."""
        nodes = self.position(self.patch(patches), positions)
        nodes = self.layers(nodes[None])[0]  # (n,D) -> (1,n,D) -> (n,D)
        result: Tensor = self.head(self.norm(nodes))
        return result


class HisToGene:
    """HisToGene as one of the compared systems."""

    def __init__(self, config: HisToGeneConfig, setting: Setting) -> None:
        self._config = config
        self._setting = setting
        self.net: HisToGeneNet

    def fit(self, training: TrainingSide) -> Progress:
        """Train for a fixed number of epochs, a step a window."""
        config, setting, learnt = self._config, self._setting, training.learnt
        labels = learnt.fine_by_slide()
        windows = fine_windows(learnt.slides, window=config.window, positions=config.positions)
        with seeded(setting):
            inputs = 3 * config.pixel_side**2 if setting.finetune else learnt.slides[0].fine.fine_width
            mean = torch.from_numpy(learnt.mean_fine())
            self.net = HisToGeneNet(config, inputs=inputs, mean=mean).to(setting.device)
            return learn(
                self.net,
                partial(shuffled, windows),
                lambda item: F.mse_loss(self._predict(item), labels_of([item], labels, setting.device)),
                optimiser=torch.optim.Adam(trainable([self.net]), lr=config.lr),
                course=config, setting=setting, side=training, predict=self.predict,
            )  # fmt: skip

    def predict(self, slide: Slide) -> np.ndarray:
        """Return (N, P), window by window."""
        windows = fine_windows([slide], window=self._config.window, positions=self._config.positions)
        return predict_windows(windows, self._predict)

    def _predict(self, item: WindowRows) -> Tensor:
        patches = window_inputs(item, self._setting, side=self._config.pixel_side).flatten(1)  # (n,I)
        result: Tensor = self.net(patches, to_device(torch.from_numpy(item.positions), self._setting.device))
        return result

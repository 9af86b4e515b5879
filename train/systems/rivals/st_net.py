"""ST-Net (He et al., "Integrating spatial gene expression and breast tumour morphology via deep learning", 2020).

In: the fine patch alone. Out: expression by one linear layer on the pooled feature, averaged over the 8 symmetries of
the patch. With `finetune` the encoder is trained as well, as in the original (a DenseNet121).
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from magnet_core.symmetry import NUM_SYMMETRIES
from train.data.rows import Rows
from train.data.slide import Slide
from train.data.training_side import TrainingSide
from train.learning.progress import Progress
from train.learning.setting import Setting
from train.settings.rivals import STNetConfig
from train.systems.rivals.learning import chunk_rows, learn, mean_head, predict_chunks, seeded, trainable
from train.systems.rivals.patches import PatchEncoder, labels_of, mixed_batches

# N fine rows of a slide, n rows of a batch, D features, P panel genes


class STNet:
    """Linear regression by gradient descent on the feature of a patch."""

    def __init__(self, config: STNetConfig, setting: Setting) -> None:
        self._config = config
        self._setting = setting
        self.encoder: PatchEncoder
        self.head: nn.Linear

    def fit(self, training: TrainingSide) -> Progress:
        """Train the head, and with `finetune` the encoder; each batch is seen in one symmetry, drawn at random."""
        config, setting, learnt = self._config, self._setting, training.learnt
        with seeded(setting):
            self.encoder = PatchEncoder(learnt.slides[0], setting)
            self.head = mean_alone(self.encoder.width, torch.from_numpy(learnt.mean_fine())).to(setting.device)
            labels = learnt.fine_by_slide()

            def batches_of(rng: np.random.Generator) -> list[tuple[list[Rows], int]]:
                batches = mixed_batches(learnt.slides, config.batch_size, rng)
                return [(pieces, int(rng.integers(NUM_SYMMETRIES))) for pieces in batches]

            def loss_of(batch: tuple[Sequence[Rows], int]) -> Tensor:
                pieces, view = batch
                predicted = self.head(self.encoder.fine(pieces, view=view))
                result: Tensor = (predicted - labels_of(pieces, labels, setting.device)).square().sum()
                return result

            modules = nn.ModuleList([self.encoder, self.head])
            optimiser = torch.optim.SGD(trainable(modules), lr=config.lr, momentum=config.momentum)
            return learn(
                modules, batches_of, loss_of,
                optimiser=optimiser, course=config, setting=setting, side=training, predict=self.predict,
            )  # fmt: skip

    def predict(self, slide: Slide) -> np.ndarray:
        """Return (N, P): the mean over all symmetries that can be told apart."""
        views = range(self.encoder.num_views(slide))

        def predict_rows(rows: np.ndarray) -> Tensor:
            pieces = [Rows(slide, rows)]
            return torch.stack([self.head(self.encoder.fine(pieces, view=view)) for view in views]).mean(dim=0)

        return predict_chunks(slide, predict_rows, rows=chunk_rows(self._setting))


def mean_alone(width: int, mean: Tensor) -> nn.Linear:
    """A linear layer (D -> P) that predicts the training mean: bias the mean label, weights 0.

    The original draws fresh weights. On fixed features of sd 1 these would add noise of sd 0.6 to every prediction,
    which its learning rate does not take away again.
    """
    head = mean_head(width, mean)
    nn.init.zeros_(head.weight)
    return head

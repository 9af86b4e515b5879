"""BLEEP (Xie et al., "Spatially resolved gene expression prediction from histology images via bi-modal contrastive
learning", NeurIPS 2023).

In: the pooled feature of the fine patch. Out: expression, the mean over the training rows whose expression embeddings
lie closest to the patch's image embedding; nothing is regressed, so that no prediction starts from the training mean.
With `finetune` the image encoder is trained too, as in the original (a ResNet50).
"""

from collections.abc import Sequence
from functools import partial

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from cache.knn import cosine_neighbours
from train.data.rows import Rows
from train.data.slide import Slide
from train.data.training_side import TrainingSide
from train.learning.progress import Progress
from train.learning.setting import Setting
from train.settings.rivals import BLEEPConfig
from train.systems.rivals.learning import chunk_rows, cut, learn, predict_chunks, seeded, trainable
from train.systems.rivals.patches import PatchEncoder, labels_of, mixed_batches

# N fine rows of a slide, M training rows, n rows of a batch, D features in, W width, K neighbours, P panel genes

_SEARCH_ROWS = 16_384  # at a time: the bank is indexed anew for each


class ProjectionHead(nn.Module):
    """Brings features (n, D) or expression (n, P) to the common space (n, W)."""

    def __init__(self, width_in: int, config: BLEEPConfig) -> None:
        super().__init__()
        self.project = nn.Linear(width_in, config.width)
        self.mix = nn.Linear(config.width, config.width)
        self.dropout = nn.Dropout(config.dropout)
        self.norm = nn.LayerNorm(config.width)

    def forward(self, rows: Tensor) -> Tensor:
        """Linear, GELU, Linear, dropout, residual from the first linear, LayerNorm."""
        projected = self.project(rows)
        result: Tensor = self.norm(projected + self.dropout(self.mix(F.gelu(projected))))
        return result


class BLEEP:
    """Two projection heads, trained to agree, and a bank of the training rows."""

    def __init__(self, config: BLEEPConfig, setting: Setting) -> None:
        self._config = config
        self._setting = setting
        self.encoder: PatchEncoder
        self.image_head: ProjectionHead
        self.expression_head: ProjectionHead
        self.bank_embeddings: np.ndarray  # (M, W)
        self.bank_expression: np.ndarray  # (M, P)

    def fit(self, training: TrainingSide) -> Progress:
        """Train both heads, and with `finetune` the encoder; then embed the expression of all training rows."""
        config, setting, learnt = self._config, self._setting, training.learnt
        labels = learnt.fine_by_slide()
        self.bank_expression = learnt.all_fine()
        with seeded(setting):
            self.encoder = PatchEncoder(learnt.slides[0], setting)
            self.image_head = ProjectionHead(self.encoder.width, config).to(setting.device)
            self.expression_head = ProjectionHead(len(learnt.panel), config).to(setting.device)

            def loss_of(pieces: Sequence[Rows]) -> Tensor:
                images = self.image_head(self.encoder.fine(pieces))
                expression = self.expression_head(labels_of(pieces, labels, setting.device))
                return contrastive_loss(images, expression, temperature=config.temperature)

            modules = nn.ModuleList([self.encoder, self.image_head, self.expression_head])
            done = learn(
                modules, partial(mixed_batches, learnt.slides, config.batch_size), loss_of,
                optimiser=torch.optim.AdamW(trainable(modules), lr=config.lr, weight_decay=config.weight_decay),
                course=config, setting=setting, side=training, predict=self._predict_as_embedded_now,
            )  # fmt: skip
        self.bank_embeddings = self._embed_expression(self.bank_expression)
        return done

    def predict(self, slide: Slide) -> np.ndarray:
        """Return (N, P): the mean expression of the nearest training rows, each counting the same."""
        return predict_chunks(slide, lambda rows: self._retrieve(self.embed_images(slide, rows)), rows=_SEARCH_ROWS)

    def _predict_as_embedded_now(self, slide: Slide) -> np.ndarray:
        """Predict while training goes on: the bank is embedded by the head as it stands."""
        self.bank_embeddings = self._embed_expression(self.bank_expression)
        return self.predict(slide)

    @torch.inference_mode()
    def embed_images(self, slide: Slide, rows: np.ndarray) -> np.ndarray:
        """Image embeddings (n, W) of fine rows (n,)."""
        parts = cut(rows, chunk_rows(self._setting))
        embedded = [self.image_head(self.encoder.fine([Rows(slide, part)])) for part in parts]
        return torch.cat(embedded).cpu().numpy()

    def _retrieve(self, queries: np.ndarray) -> Tensor:
        device = str(self._setting.device)
        neighbours, _ = cosine_neighbours(queries, self.bank_embeddings, self._config.neighbours, device=device)
        total = np.zeros((len(queries), self.bank_expression.shape[1]), np.float32)
        for place in range(neighbours.shape[1]):  # (n,K,P) at once would be gigabytes
            total += self.bank_expression[neighbours[:, place]]
        return torch.from_numpy(total / neighbours.shape[1])

    @torch.inference_mode()
    def _embed_expression(self, expression: np.ndarray) -> np.ndarray:
        parts = torch.from_numpy(expression).split(chunk_rows(self._setting))
        return torch.cat([self.expression_head(part.to(self._setting.device)).cpu() for part in parts]).numpy()


def contrastive_loss(images: Tensor, expression: Tensor, *, temperature: float) -> Tensor:
    """Symmetric soft cross-entropy of image I (n, W) and expression E (n, W) embeddings of the same rows.

    Logits are E Iᵀ / τ. Rows alike in image or expression are no negatives of each other: the targets say so. As in the
    paper, the targets carry a gradient, and the other direction takes logits and targets transposed.
    """
    logits = expression @ images.T / temperature
    targets = soft_targets(images, expression, temperature=temperature)
    return (F.cross_entropy(logits, targets) + F.cross_entropy(logits.T, targets.T)) / 2


def soft_targets(images: Tensor, expression: Tensor, *, temperature: float) -> Tensor:
    """Rows of softmax((I Iᵀ + E Eᵀ) / 2τ), (n, n): how alike a row of the batch is to each."""
    return torch.softmax((images @ images.T + expression @ expression.T) / (2 * temperature), dim=1)

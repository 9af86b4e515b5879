"""EGN (Yang et al., "Exemplar guided deep neural network for spatial transcriptomics analysis", WACV 2023).

In: fine feature and tokens of the fine patch, and its exemplars: the training patches that look most like it, with
their expression. Out: expression. A ViT runs over the tokens; after every second layer its class token and the
exemplars correct each other. With `finetune` the encoder that makes the tokens is trained too; exemplars are always
found by cached features.
"""

from collections.abc import Sequence
from functools import partial

import numpy as np
import torch
from torch import Tensor, nn

from cache.knn import cosine_neighbours
from magnet_core.device import to_device
from magnet_core.errors import MagnetError
from magnet_core.losses import mse_loss, pcc_loss
from train.data.rows import Rows
from train.data.slide import Slide
from train.data.training_side import TrainingSide
from train.learning.progress import Progress
from train.learning.setting import Setting
from train.settings.rivals import EGNConfig
from train.systems.rivals.learning import chunk_rows, cut, learn, mean_head, predict_chunks, seeded, trainable
from train.systems.rivals.patches import PatchEncoder, labels_of, mixed_batches
from train.systems.rivals.transformer import transformer_layers

# N fine rows of a slide, M training rows, n rows of a batch, k exemplars, T tokens, F features, W width, P panel genes

_SEARCH_ROWS = 16_384  # queries at a time


class ExemplarBlock(nn.Module):
    """Lets the query q (n, W) and its exemplar keys k (n, k, W) correct each other.

    Both see the pair [q - k ; k], normalised: how the patch differs from an exemplar, and what the exemplar is.

        q   <- q   + mean over i of gate_q(pair_i) * change_q(pair_i)
        k_i <- k_i + gate_k(pair_i) * change_k(pair_i)

    The formula is our reading of the paper. A gate is a sigmoid, feature by feature: closed, it leaves its side as it
    was. The mean makes the order of the exemplars of no account.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(2 * width)
        self.gate = nn.Linear(2 * width, 2 * width)
        self.change = nn.Linear(2 * width, 2 * width)

    def forward(self, query: Tensor, keys: Tensor) -> tuple[Tensor, Tensor]:
        """Return the new query and keys."""
        pair = self.norm(torch.cat([query[:, None] - keys, keys], dim=2))  # (n,k,2W)
        of_query, of_keys = (torch.sigmoid(self.gate(pair)) * self.change(pair)).chunk(2, dim=2)
        return query + of_query.mean(dim=1), keys + of_keys


class ExemplarNetwork(nn.Module):
    """From the tokens of a patch and its exemplars to expression."""

    def __init__(self, config: EGNConfig, *, feature_dim: int, num_tokens: int, mean: Tensor) -> None:
        super().__init__()
        width, num_genes = config.width, len(mean)
        self.project_tokens = nn.Linear(feature_dim, width)
        self.project_class = nn.Linear(feature_dim, width)
        self.project_exemplars = nn.Linear(feature_dim + num_genes, width)
        self.position = nn.Parameter(0.02 * torch.randn(1 + num_tokens, width))
        self.layers = transformer_layers(config)
        self.blocks = nn.ModuleList(ExemplarBlock(width) for _ in range(config.depth // config.every))
        self.pool = nn.MultiheadAttention(width, config.heads, batch_first=True)
        self.norm = nn.LayerNorm(2 * width)
        self.head = mean_head(2 * width, mean)
        self._every = config.every

    def forward(self, patches: Tensor, exemplars: Tensor) -> Tensor:
        """Map patches (n, 1 + T, F), the fine feature first, and exemplars (n, k, F + P) to (n, P).

        The class token starts from the fine feature.
        """
        class_token, tokens = self.project_class(patches[:, :1]), self.project_tokens(patches[:, 1:])
        sequence = torch.cat([class_token, tokens], dim=1) + self.position  # (n,1+T,W)
        keys = self.project_exemplars(exemplars)
        for index, layer in enumerate(self.layers, start=1):
            sequence = layer(sequence)
            if index % self._every == 0:
                query, keys = self.blocks[index // self._every - 1](sequence[:, 0], keys)
                sequence = torch.cat([query[:, None], sequence[:, 1:]], dim=1)
        query = sequence[:, :1]
        pooled, _ = self.pool(query, keys, keys, need_weights=False)
        result: Tensor = self.head(self.norm(torch.cat([query, pooled], dim=2)[:, 0]))
        return result


class ExemplarBank:
    """All training rows: their cached features and expression, and which of them look most like a given patch."""

    def __init__(self, training: TrainingSide) -> None:
        sizes = [len(slide.fine) for slide in training.slides]
        self.features = np.concatenate(
            [fine_and_scaled(slide, np.arange(len(slide.fine))) for slide in training.slides]
        )
        self.expression = training.all_fine()
        self.slide_of = np.repeat([slide.slide_id for slide in training.slides], sizes)  # (M,)
        self.patient_of = np.repeat([slide.patient for slide in training.slides], sizes)

    def similar(self, slide: Slide, k: int, *, device: torch.device) -> np.ndarray:
        """Bank rows (N, K) most similar to each fine row of a slide that was not learnt from, by cosine."""
        return self._search(slide, np.arange(len(self.features)), k, device)

    def similar_to_others(self, slide: Slide, k: int, *, device: torch.device) -> np.ndarray:
        """Bank rows (N, K) most similar to each fine row of a training slide, as if that slide were tested.

        A tested patient has no rows in the bank, so those of the slide's own patient are left out: its patches overlap
        their neighbours, and from these the network would learn to copy. Of one training patient, those of the slide
        are left out; of one slide, the row itself.
        """
        for owner_of, own in ((self.patient_of, slide.patient), (self.slide_of, slide.slide_id)):
            others = np.flatnonzero(owner_of != own)
            if len(others):
                return self._search(slide, others, k, device)
        return self._without_itself(self._search(slide, np.arange(len(self.features)), k + 1, device), k)

    def rows(self, indices: np.ndarray, device: torch.device) -> Tensor:
        """Exemplars (n, k, F + P) of bank rows (n, k): feature, then expression."""
        return to_device(
            torch.from_numpy(np.concatenate([self.features[indices], self.expression[indices]], axis=2)), device
        )

    def _search(self, slide: Slide, allowed: np.ndarray, k: int, device: torch.device) -> np.ndarray:
        keys = self.features if len(allowed) == len(self.features) else self.features[allowed]
        parts = cut(np.arange(len(slide.fine)), _SEARCH_ROWS)
        nearest = [cosine_neighbours(fine_and_scaled(slide, part), keys, k, device=str(device))[0] for part in parts]
        values: np.ndarray = allowed[np.concatenate(nearest)]
        return values

    def _without_itself(self, neighbours: np.ndarray, k: int) -> np.ndarray:
        """Drop each row's own index from (N, K+1), or the last index where identical patches have displaced it."""
        if neighbours.shape[1] == 1:
            raise MagnetError(
                "egn", expected="2 training rows or more", found="one", remedy="train on more slides, or extract more"
            )
        is_own = neighbours == np.arange(len(neighbours))[:, None]
        is_own[~is_own.any(axis=1), -1] = True
        values: np.ndarray = neighbours[~is_own].reshape(len(neighbours), -1)[:, :k]
        return values


class EGN:
    """The exemplar network, trained on the rows of all training slides mixed."""

    def __init__(self, config: EGNConfig, setting: Setting) -> None:
        self._config = config
        self._setting = setting
        self.bank: ExemplarBank
        self.encoder: PatchEncoder
        self.net: ExemplarNetwork

    def fit(self, training: TrainingSide) -> Progress:
        """Train the network, and with `finetune` the encoder."""
        config, setting, learnt = self._config, self._setting, training.learnt
        self.bank = ExemplarBank(learnt)
        exemplars = {
            slide.slide_id: self.bank.similar_to_others(slide, config.exemplars, device=setting.device)
            for slide in learnt.slides
        }
        labels = learnt.fine_by_slide()
        with seeded(setting):
            self._build(learnt)

            def loss_of(pieces: Sequence[Rows]) -> Tensor:
                indices = np.concatenate([exemplars[piece.slide.slide_id][piece.rows] for piece in pieces])
                predicted = self._expression(pieces, indices)
                return egn_loss(predicted, labels_of(pieces, labels, setting.device), pcc_weight=config.pcc_weight)

            modules = nn.ModuleList([self.encoder, self.net])
            optimiser = torch.optim.Adam(trainable(modules), lr=config.lr, weight_decay=config.weight_decay)
            return learn(
                modules, partial(mixed_batches, learnt.slides, config.batch_size), loss_of,
                optimiser=optimiser, course=config, setting=setting, side=training, predict=self.predict,
            )  # fmt: skip

    def predict(self, slide: Slide) -> np.ndarray:
        """Return (N, P)."""
        exemplars = self.bank.similar(slide, self._config.exemplars, device=self._setting.device)
        return predict_chunks(
            slide, lambda rows: self._expression([Rows(slide, rows)], exemplars[rows]), rows=chunk_rows(self._setting)
        )

    def _expression(self, pieces: Sequence[Rows], exemplars: np.ndarray) -> Tensor:
        patches = self.encoder.fine_and_tokens(pieces, token_grid=self._config.token_grid)
        result: Tensor = self.net(patches, self.bank.rows(exemplars, self._setting.device))
        return result

    def _build(self, training: TrainingSide) -> None:
        first = training.slides[0]
        self.encoder = PatchEncoder(first, self._setting)
        with torch.no_grad():
            one = self.encoder.fine_and_tokens([Rows(first, np.arange(1))], token_grid=self._config.token_grid)
        self.net = ExemplarNetwork(
            self._config,
            feature_dim=first.fine.fine_width,
            num_tokens=one.shape[1] - 1,
            mean=torch.from_numpy(training.mean_fine()),
        ).to(self._setting.device)


def egn_loss(predicted: Tensor, truth: Tensor, *, pcc_weight: float) -> Tensor:
    """MSE + weight * (1 - Pearson's correlation of each gene over the batch, averaged over genes that vary), (n, P)."""
    return mse_loss(predicted, truth) + pcc_weight * pcc_loss(predicted, truth, over="bins")


def fine_and_scaled(slide: Slide, rows: np.ndarray) -> np.ndarray:
    """Scaled fine features (n, F) float32 of the frozen encoder."""
    return slide.fine.fine_scale(slide.fine.features("fine", rows)).numpy()

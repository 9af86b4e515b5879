"""His2ST (Hist2ST): convolutions on the patch, a transformer, a graph network and an LSTM over it (Zeng et al. 2022).

In: windows of a slide's fine rows, with raw counts in training; the original takes whole slides of a few hundred spots.
Out: normalised expression (N, P). A row's prediction depends on the other rows of its window, and windows depend on the
slide alone.
With the encoder frozen a linear layer on the cached feature stands where the convolutions are; when fine-tuned, the
convolutions read the pixels, averaged to `pixel_side` a side, so that every target gives as many.
The loss is MSE + 0.25 · ZINB of the raw counts + 0.5 · self-distillation: the mean prediction of 5 views of the window
is the target of the plain one. The target is held fixed: the average of views teaches, it does not follow its pupil.
A view is a symmetry of the patches where there are several to be told apart; otherwise views differ by dropout alone.
Ours: the head's bias starts at the training mean; the original's starts at random.
"""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from magnet_core.device import to_device
from magnet_core.symmetry import NUM_SYMMETRIES
from train.data.raw_counts import read_counts
from train.data.slide import Slide
from train.data.subgraph import edges_among
from train.data.training_side import TrainingSide
from train.learning.progress import Progress
from train.learning.setting import Setting
from train.settings.rivals import His2STConfig
from train.systems.rivals.learning import falling, learn, mean_head, seeded, trainable
from train.systems.rivals.patches import labels_of
from train.systems.rivals.transformer import PositionEmbedding, transformer_layers
from train.systems.rivals.windows import WindowRows, fine_windows, predict_windows, shuffled, window_inputs

with warnings.catch_warnings():  # torch_geometric calls torch.jit.script while it is imported
    warnings.filterwarnings("ignore", message=r"`torch\.jit", category=FutureWarning)
    from torch_geometric.nn import SAGEConv

# N fine rows of a slide, n rows of a window, E edges, D width, C channels, L SAGE layers, P panel genes, q pixels

LARGEST_LOG_RATE = 12.0  # of the ZINB's mean, before the library: above it e^12 is kept, not infinity
DISPERSIONS = (1e-4, 1e4)
SMALLEST_MEAN = 1e-8  # of a row without counts


class ConvMixer(nn.Module):
    """A depth-wise convolution over places with a residual, then a 1 × 1 convolution over channels."""

    def __init__(self, channels: int, kernel: int) -> None:
        super().__init__()
        self.over_places = nn.Sequential(
            nn.Conv2d(channels, channels, kernel, groups=channels, padding="same"), nn.GELU(), nn.BatchNorm2d(channels)
        )
        self.over_channels = nn.Sequential(nn.Conv2d(channels, channels, 1), nn.GELU(), nn.BatchNorm2d(channels))

    def forward(self, images: Tensor) -> Tensor:
        """Mix images (n, C, h, w)."""
        result: Tensor = self.over_channels(images + self.over_places(images))
        return result


def pixel_stem(config: His2STConfig) -> nn.Sequential:
    """Build the convolutions from pixels (n, 3, q, q) to nodes (n, D): places × channels of the last map are D."""
    places = (config.pixel_side // config.patch) ** 2
    return nn.Sequential(
        nn.Conv2d(3, config.channels, config.patch, stride=config.patch),
        *(ConvMixer(config.channels, config.kernel) for _ in range(config.mixers)),
        nn.Conv2d(config.channels, config.width // places, 1),
        nn.Flatten(),
    )


@dataclass(frozen=True)
class Output:
    """Predictions (n, P), and what the counts of the same rows are expected to be, as `zinb_loss` takes it.

    log_rate  logarithm of the mean count of a row of average library
    """

    expression: Tensor
    log_rate: Tensor
    dispersion: Tensor
    dropout_logit: Tensor


class His2STNet(nn.Module):
    """The network over one window; `stem` brings patches to the width D."""

    def __init__(self, config: His2STConfig, stem: nn.Module, *, mean: Tensor, log_rate: Tensor) -> None:
        super().__init__()
        width, num_genes = config.width, len(mean)
        self.stem = stem
        self.dropout = nn.Dropout(config.dropout)
        self.position = PositionEmbedding(config.positions, width)
        self.layers = transformer_layers(config)
        self.graph = nn.ModuleList(SAGEConv(width, width, aggr="mean") for _ in range(config.sage_layers))
        self.over_layers = nn.LSTM(width, width, config.lstm_layers)
        self.norm = nn.LayerNorm(width)
        self.head = mean_head(width, mean)
        self.log_rate = mean_head(width, log_rate)
        self.dispersion = nn.Linear(width, num_genes)
        self.dropout_logit = nn.Linear(width, num_genes)

    def forward(self, patches: Tensor, positions: Tensor, edges: Tensor) -> Output:
        """Predict from patches, as the stem takes them, at positions (n, 2), over edges (2, E), source over target."""
        nodes = self.position(self.dropout(self.stem(patches)), positions)
        nodes = self.layers(nodes[None])[0]  # (n,D) -> (1,n,D) -> (n,D)
        rounds = []
        for sage in self.graph:
            nodes = F.relu(sage(nodes, edges))
            rounds.append(nodes)
        nodes = self.over_layers(torch.stack(rounds))[0].mean(dim=0)  # (L,n,D), a sequence of L a row -> (n,D)
        nodes = self.norm(nodes)
        dispersion = F.softplus(self.dispersion(nodes)).clamp(*DISPERSIONS)
        return Output(self.head(nodes), self.log_rate(nodes), dispersion, self.dropout_logit(nodes))


def zinb_loss(counts: Tensor, mean: Tensor, dispersion: Tensor, dropout_logit: Tensor) -> Tensor:
    """Mean negative log-likelihood of counts (n, P) under a zero-inflated negative binomial, in float64.

    `dispersion` θ > 0 makes the variance μ + μ²/θ, as n of `scipy.stats.nbinom`; with the probability
    sigmoid(`dropout_logit`) a count is 0 whatever its mean is. In float32 the log-gammas of large θ would cancel.
    """
    counts, mean, theta, logit = (values.double() for values in (counts, mean, dispersion, dropout_logit))
    log_zero = -theta * torch.log1p(mean / theta)  # of the negative binomial
    log_choose = torch.lgamma(counts + theta) - torch.lgamma(theta) - torch.lgamma(counts + 1)
    log_count = log_choose + log_zero + torch.xlogy(counts, mean / (mean + theta))
    log_kept = F.logsigmoid(-logit)
    as_zero = torch.logaddexp(F.logsigmoid(logit), log_kept + log_zero)
    return -torch.where(counts == 0, as_zero, log_kept + log_count).mean()


def window_edges(item: WindowRows, neighbours: int) -> np.ndarray:
    """Edges (2, E), source over target, from the nearest rows of each row to it, both within the window."""
    return edges_among(item.slide.fine.edges[:, :neighbours], item.rows)


@dataclass(frozen=True)
class _Step:
    """One window, and the symmetries in which it is seen for the distillation."""

    item: WindowRows
    views: Sequence[int]


class _Counts:
    """Raw counts of training slides, and the library of each row as a share of the mean library."""

    def __init__(self, training: TrainingSide) -> None:
        read = {s.slide_id: read_counts(s, training.panel, training.normalise) for s in training.slides}
        mean_library = max(float(np.concatenate([library for _, library in read.values()]).mean()), 1.0)
        self._counts = {slide_id: counts for slide_id, (counts, _) in read.items()}
        self._sizes = {slide_id: (library / mean_library) for slide_id, (_, library) in read.items()}
        total = sum(np.asarray(counts.sum(axis=0)).ravel() for counts in self._counts.values())
        num_rows = sum(counts.shape[0] for counts in self._counts.values())
        self.log_mean = torch.from_numpy(np.log(np.maximum(total / num_rows, 1e-4))).float()  # (P,)

    def of(self, item: WindowRows, device: torch.device) -> tuple[Tensor, Tensor]:
        """Counts (n, P) and sizes (n, 1) of a window's rows."""
        slide_id, rows = item.slide.slide_id, item.rows
        counts = torch.from_numpy(self._counts[slide_id][rows].toarray()).float()
        sizes = torch.from_numpy(self._sizes[slide_id][rows]).float()[:, None]
        return to_device(counts, device), to_device(sizes, device)


class His2ST:
    """His2ST as one of the compared systems."""

    def __init__(self, config: His2STConfig, setting: Setting) -> None:
        self._config = config
        self._setting = setting
        self.net: His2STNet

    def fit(self, training: TrainingSide) -> Progress:
        """Train for a fixed number of epochs, a step a window."""
        config, setting, learnt = self._config, self._setting, training.learnt
        self._labels = learnt.fine_by_slide()
        self._counts = _Counts(learnt)
        windows = fine_windows(learnt.slides, window=config.window, positions=config.positions)
        with seeded(setting):
            cached_width = learnt.slides[0].fine.fine_width
            stem = pixel_stem(config) if setting.finetune else nn.Linear(cached_width, config.width)
            mean = torch.from_numpy(learnt.mean_fine())
            self.net = His2STNet(config, stem, mean=mean, log_rate=self._counts.log_mean).to(setting.device)
            optimiser = torch.optim.Adam(trainable([self.net]), lr=config.lr)
            done = learn(
                self.net, partial(self._steps, windows), self._loss,
                optimiser=optimiser, course=config, setting=setting, side=training, predict=self.predict,
                schedule=falling(optimiser, config, steps_of_epoch=len(windows)),
            )  # fmt: skip
        del self._labels, self._counts
        return done

    def predict(self, slide: Slide) -> np.ndarray:
        """Return (N, P), window by window."""
        windows = fine_windows([slide], window=self._config.window, positions=self._config.positions)
        return predict_windows(windows, lambda item: self._forward(item).expression)

    def _steps(self, windows: Sequence[WindowRows], rng: np.random.Generator) -> list[_Step]:
        return [
            _Step(item, rng.permutation(NUM_SYMMETRIES)[: self._config.views].tolist())
            for item in shuffled(windows, rng)
        ]

    def _loss(self, step: _Step) -> Tensor:
        config, device = self._config, self._setting.device
        with torch.no_grad():
            target = torch.stack([self._forward(step.item, view=view).expression for view in step.views]).mean(dim=0)
        plain = self._forward(step.item)
        counts, sizes = self._counts.of(step.item, device)
        mean = (sizes * plain.log_rate.clamp(max=LARGEST_LOG_RATE).exp()).clamp(min=SMALLEST_MEAN)
        return (
            F.mse_loss(plain.expression, labels_of([step.item], self._labels, device))
            + config.zinb * zinb_loss(counts, mean, plain.dispersion, plain.dropout_logit).float()
            + config.distil * F.mse_loss(plain.expression, target)
        )

    def _forward(self, item: WindowRows, *, view: int = 0) -> Output:
        device = self._setting.device
        edges = window_edges(item, self._config.neighbours)
        result: Output = self.net(
            window_inputs(item, self._setting, side=self._config.pixel_side, view=view),
            to_device(torch.from_numpy(item.positions), device),
            to_device(torch.from_numpy(edges), device),
        )
        return result

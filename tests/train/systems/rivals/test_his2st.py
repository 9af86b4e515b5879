from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats

from cache.store import Store
from tests.train.systems.rivals.setting import assert_learns, assert_refused, assert_the_seed_decides, training_of
from train.learning.setting import Setting
from train.settings.rivals import His2STConfig
from train.systems.rivals.his2st import His2ST, His2STNet, pixel_stem, window_edges, zinb_loss
from train.systems.rivals.windows import fine_windows

SIZES = {"window": 64, "width": 32, "depth": 1, "heads": 4, "mlp": 32, "sage_layers": 2, "channels": 8, "views": 2}
SMALL = His2STConfig(epochs=30, lr=2e-3, pixel_side=28, **SIZES)
SHORT = SMALL.changed(epochs=1)


def _net(stem: torch.nn.Module) -> His2STNet:
    torch.manual_seed(0)
    return His2STNet(SMALL, stem, mean=torch.zeros(5), log_rate=torch.zeros(5))


def _graph(n: int = 12) -> tuple[torch.Tensor, torch.Tensor]:
    nodes = torch.arange(n)
    return torch.stack([nodes % 4, nodes // 4], dim=1), torch.stack([nodes, (nodes + 1) % n])


def test_it_learns_its_training_slides(small_store: Store, tmp_path: Path) -> None:
    assert_learns(His2ST(SMALL, Setting()), training_of(small_store, tmp_path))


def test_the_likelihood_of_counts_is_that_of_scipy_with_zeros_added() -> None:
    rng = np.random.default_rng(0)
    counts = rng.poisson(3, size=(50, 6)).astype(float)
    counts[0], counts[1] = 0, 500
    mean, dispersion = rng.lognormal(0, 2, size=(2, 50, 6))
    dispersion[2], mean[3] = 1e4, 1e-8
    logit = rng.normal(0, 3, size=(50, 6))
    zeros = 1 / (1 + np.exp(-logit))
    log_counts = stats.nbinom.logpmf(counts, dispersion, dispersion / (dispersion + mean))
    expected = np.where(counts == 0, np.log(zeros + (1 - zeros) * np.exp(log_counts)), np.log1p(-zeros) + log_counts)
    for row in range(50):
        arguments = (torch.from_numpy(values[[row]]) for values in (counts, mean, dispersion, logit))
        np.testing.assert_allclose(zinb_loss(*arguments).item(), -expected[row].mean(), rtol=1e-6)


def test_the_likelihood_has_gradients_where_counts_are_zero_and_large() -> None:
    counts = torch.tensor([[0.0, 5000.0, 0.0, 3.0]])
    values = [torch.full((1, 4), start, requires_grad=True) for start in (1e-8, 1e4, 0.0)]
    zinb_loss(counts, *values).backward()
    assert all(value.grad is not None and torch.isfinite(value.grad).all() for value in values)


def test_neighbours_are_the_nearest_rows_that_share_the_window(small_store: Store, tmp_path: Path) -> None:
    slide = training_of(small_store, tmp_path).training.slides[0]
    for item in fine_windows([slide], window=64, positions=64):
        rows = item.rows
        expected = {
            (neighbour, row) for row in rows for neighbour in slide.fine.edges[row, :4] if neighbour in set(rows)
        }
        sources, targets = rows[window_edges(item, 4)]
        assert set(zip(sources, targets, strict=True)) == expected
        assert len(sources) == len(expected)


def test_a_graph_layer_adds_the_mean_of_the_neighbours() -> None:
    sage: Any = _net(torch.nn.Identity()).graph[0]
    nodes, edges = torch.randn(4, 32), torch.tensor([[1, 2, 0], [0, 0, 3]])
    means = torch.stack([(nodes[1] + nodes[2]) / 2, torch.zeros(32), torch.zeros(32), nodes[0]])
    torch.testing.assert_close(sage(nodes, edges), sage.lin_l(means) + sage.lin_r(nodes))


@pytest.mark.parametrize("finetune", [False, True])
def test_every_parameter_gets_a_gradient(finetune: bool) -> None:
    net = _net(pixel_stem(SMALL) if finetune else torch.nn.Linear(10, 32))
    patches = torch.rand(12, 3, 28, 28) if finetune else torch.randn(12, 10)
    output = net(patches, *_graph())
    counts = torch.poisson(torch.full((12, 5), 2.0))
    loss = output.expression.square().mean()
    (loss + zinb_loss(counts, output.log_rate.exp(), output.dispersion, output.dropout_logit)).backward()
    flat = [name for name, p in net.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    assert flat == []


@pytest.mark.parametrize("finetune", [False, True])
def test_without_dropout_there_is_something_to_distil_only_where_views_differ(
    small_store: Store, tmp_path: Path, finetune: bool
) -> None:
    sides = training_of(small_store, tmp_path)
    heads = []
    for distil in (0.0, 5.0):
        system = His2ST(SHORT.changed(distil=distil, dropout=0.0), Setting(finetune=finetune))
        system.fit(sides.training)
        heads.append(system.net.head.weight.detach())
    moved = float((heads[0] - heads[1]).abs().median())
    assert (moved > 1e-5) == finetune, moved


@pytest.mark.parametrize("finetune", [False, True])
def test_the_seed_decides_and_the_callers_randomness_is_left_alone(
    small_store: Store, tmp_path: Path, finetune: bool
) -> None:
    assert_the_seed_decides(partial(His2ST, SHORT), training_of(small_store, tmp_path), finetune=finetune)


def test_fine_tuned_its_convolutions_learn(small_store: Store, tmp_path: Path) -> None:
    sides = training_of(small_store, tmp_path)
    stems = []
    for lr in (1e-30, 1e-3):
        system = His2ST(SHORT.changed(lr=lr), Setting(finetune=True))
        system.fit(sides.training)
        assert np.isfinite(system.predict(sides.test_slides[0])).all()
        stems.append(dict(system.net.stem.named_parameters()))
    assert all(not torch.equal(stems[0][name], stems[1][name]) for name in stems[0])


@pytest.mark.parametrize(
    "settings",
    [
        {"epochs": 0},
        {"views": 9},
        {"dropout": 1.0},
        {"width": 64, "heads": 3},
        {"width": 1024, "pixel_side": 70},
        {"width": 1024, "pixel_side": 5},
    ],
)
def test_a_setting_out_of_range_is_refused_by_name(settings: dict[str, float]) -> None:
    assert_refused(His2STConfig, "his2st", **settings)

from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

import train.systems.rivals.triplex as triplex
from cache.store import Store
from tests.train.systems.rivals.setting import (
    assert_learns,
    assert_refused,
    assert_same,
    assert_the_seed_decides,
    training_of,
)
from train.learning.setting import Setting
from train.settings.rivals import TriplexConfig
from train.systems.rivals.triplex import GridEncoding, RelativeBias, Triplex, TriplexNet, triplex_loss

SMALL = TriplexConfig(
    epochs=8, lr=2e-3, batch_size=32, token_grid=2, width=32, heads=4, mlp=64, neighbour_layers=1, global_layers=2
)
SHORT = SMALL.changed(epochs=1, batch_size=128)


@pytest.mark.parametrize("target", [8, 55])
def test_it_learns_its_training_slides(small_store: Store, tmp_path: Path, target: int) -> None:
    config = SMALL.changed(epochs=60) if target == 55 else SMALL  # few spots, few steps an epoch
    assert_learns(Triplex(config, Setting()), training_of(small_store, tmp_path, f"data.target={target}"))


def test_the_relative_bias_depends_on_the_offset_of_two_tokens() -> None:
    grid, heads = 3, 2
    bias = RelativeBias(grid, heads)
    table = bias.table.unflatten(0, (2 * grid - 1, 2 * grid - 1))
    for query in range(grid**2):
        for key in range(grid**2):
            down, right = query // grid - key // grid, query % grid - key % grid
            assert torch.equal(bias()[:, query, key], table[down + grid - 1, right + grid - 1])


def test_the_bias_is_added_to_the_attention_logits() -> None:
    torch.manual_seed(0)
    block = triplex.Block(SMALL.changed(width=8, heads=2, mlp=8)).eval()
    tokens, bias = torch.randn(1, 4, 8), torch.randn(2, 4, 4)
    normed = block.norm(tokens)[0]
    q, k, v = (layer(normed) for layer in (block.query, block.key, block.value))
    heads = []
    for head in range(2):
        part = slice(4 * head, 4 * head + 4)
        weights = torch.softmax(q[:, part] @ k[:, part].T / 2 + bias[head], dim=1)
        heads.append(weights @ v[:, part])
    expected = tokens[0] + block.out(torch.cat(heads, dim=1))
    torch.testing.assert_close(block(tokens, bias=bias)[0], expected + block.mlp(expected))


def test_the_grid_encoding_is_a_convolution_over_the_spots_that_touch() -> None:
    torch.manual_seed(0)
    encoding = GridEncoding(5)
    positions = torch.tensor([[0, 0], [1, 0], [3, 0], [1, 1], [4, 2], [0, 3]])
    spots = torch.randn(6, 5)
    weight, bias = encoding.convolution.weight, encoding.convolution.bias
    assert bias is not None
    expected = spots + bias
    for centre, (x, y) in enumerate(positions.tolist()):
        for other, (x_other, y_other) in enumerate(positions.tolist()):
            if abs(x_other - x) <= 1 and abs(y_other - y) <= 1:
                expected[centre] = expected[centre] + weight[:, 0, y_other - y + 1, x_other - x + 1] * spots[other]
    torch.testing.assert_close(encoding(spots, positions), expected)


def test_spots_of_one_position_show_their_mean() -> None:
    encoding = GridEncoding(3)
    spots = torch.randn(2, 3)
    both = encoding(spots, torch.zeros(2, 2, dtype=torch.int64)) - spots
    alone = encoding(spots.mean(dim=0, keepdim=True), torch.zeros(1, 2, dtype=torch.int64)) - spots.mean(dim=0)
    torch.testing.assert_close(both, alone.expand(2, 3))


def test_the_loss_is_that_of_the_fusion_and_of_each_head_between_label_and_fusion() -> None:
    labels = torch.zeros(2, 3)
    predictions = torch.stack([torch.full((2, 3), value) for value in (1.0, 2.0, 3.0, 4.0)]).requires_grad_()
    loss = triplex_loss(predictions, labels, distil=0.3)
    views = 0.7 * (2**2 + 3**2 + 4**2) + 0.3 * (1**2 + 2**2 + 3**2)
    assert loss.item() == pytest.approx(1 + views)
    loss.backward()
    assert predictions.grad is not None
    gradients = predictions.grad.sum(dim=(1, 2))
    torch.testing.assert_close(gradients[0].item(), 2.0)  # nothing of the distillation: the fusion teaches, only
    torch.testing.assert_close(gradients[3].item(), 0.7 * 2 * 4 + 0.3 * 2 * 3, rtol=1e-5, atol=0)


def test_every_parameter_gets_a_gradient() -> None:
    torch.manual_seed(0)
    net = TriplexNet(SMALL.changed(fusion_layers=2), (10, 11, 12), region_grid=2, mean=torch.zeros(5))
    positions = torch.stack([torch.arange(6) % 3, torch.arange(6) // 3], dim=1)
    spots = net.whole(torch.randn(6, 12), positions)
    region_of = torch.tensor([0, 1, 1, 0])
    predictions = net(torch.randn(4, 4, 10), torch.randn(2, 4, 11), region_of, spots[torch.tensor([0, 2, 2, 5])])
    triplex_loss(predictions, torch.randn(4, 5), distil=0.3).backward()
    still = [name for name, p in net.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    # A bias of the keys moves all logits of a query alike, and the softmax does not see it.
    assert [name for name in still if not name.endswith("key.bias")] == []


@pytest.mark.parametrize("target", [8, 55])
def test_a_prediction_does_not_depend_on_chunks(
    small_store: Store, tmp_path: Path, target: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    sides = training_of(small_store, tmp_path, f"data.target={target}")
    system = Triplex(SHORT.changed(global_window=20), Setting())
    system.fit(sides.training)
    slide = sides.test_slides[0]
    whole = system.predict(slide)
    assert whole.shape == (len(slide.fine), 20)
    monkeypatch.setattr(triplex, "chunk_rows", lambda setting: 7)
    assert_same(system.predict(slide), whole)


def test_an_epoch_holds_every_row_once_with_its_own_spot(small_store: Store, tmp_path: Path) -> None:
    slides = training_of(small_store, tmp_path).training.slides
    config = SMALL.changed(global_window=20)
    views = [triplex._Global.of(slide, config) for slide in slides]
    batches = triplex._batches(slides, views, 16, np.random.default_rng(0))
    assert max(len(batch.piece.rows) for batch in batches) <= 16
    for slide in slides:
        own = [batch for batch in batches if batch.piece.slide is slide]
        np.testing.assert_array_equal(
            np.sort(np.concatenate([batch.piece.rows for batch in own])), np.arange(len(slide.fine))
        )
        for batch in own:
            np.testing.assert_array_equal(batch.window.rows[batch.place], slide.pairs["spot"][batch.piece.rows])


def test_one_seed_gives_one_prediction_and_leaves_the_callers_random_state_alone(
    small_store: Store, tmp_path: Path
) -> None:
    assert_the_seed_decides(partial(Triplex, SHORT), training_of(small_store, tmp_path))


def test_fine_tuned_its_encoder_learns(small_store: Store, tmp_path: Path) -> None:
    sides = training_of(small_store, tmp_path)
    encoders = []
    for lr in (1e-30, 1e-3):
        system = Triplex(SHORT.changed(lr=lr), Setting(finetune=True))
        system.fit(sides.training)
        assert np.isfinite(system.predict(sides.test_slides[0])).all()
        encoders.append(list(system.encoder.parameters()))
    changed = [not torch.equal(before, after) for before, after in zip(*encoders, strict=True)]
    assert sum(changed) > 0.9 * len(changed) > 0


@pytest.mark.parametrize(
    "settings", [{"epochs": 0}, {"distil": 1.1}, {"dropout": 1.0}, {"width": 64, "heads": 3}, {"lr": 0.0}]
)
def test_a_setting_out_of_range_is_refused_by_name(settings: dict[str, float]) -> None:
    assert_refused(TriplexConfig, "triplex", **settings)

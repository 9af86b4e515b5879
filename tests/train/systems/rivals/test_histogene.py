from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

from cache.store import Store
from tests.train.systems.rivals.setting import assert_learns, assert_refused, assert_the_seed_decides, training_of
from train.learning.setting import Setting
from train.settings.rivals import HisToGeneConfig
from train.systems.rivals.histogene import HisToGene, HisToGeneNet
from train.systems.rivals.windows import fine_windows

SMALL = HisToGeneConfig(epochs=30, lr=1e-3, window=64, width=32, depth=2, heads=4, mlp=64, pixel_side=14)
SHORT = HisToGeneConfig(epochs=1, lr=1e-3, window=64, width=32, depth=1, heads=4, mlp=64, pixel_side=14)


def _net() -> HisToGeneNet:
    torch.manual_seed(0)
    return HisToGeneNet(SMALL, inputs=10, mean=torch.zeros(5)).eval()


def _window(n: int = 12) -> tuple[torch.Tensor, torch.Tensor]:
    torch.manual_seed(1)
    return torch.randn(n, 10), torch.stack([torch.arange(n) % 4, torch.arange(n) // 4], dim=1)


def test_it_learns_its_training_slides(small_store: Store, tmp_path: Path) -> None:
    assert_learns(HisToGene(SMALL, Setting()), training_of(small_store, tmp_path))


def test_the_order_of_rows_does_not_matter() -> None:
    patches, positions = _window()
    order = torch.randperm(len(patches))
    net = _net()
    torch.testing.assert_close(net(patches[order], positions[order]), net(patches, positions)[order])


def test_a_row_that_moves_changes_its_own_prediction_and_those_of_its_window() -> None:
    patches, positions = _window()
    moved = positions.clone()
    moved[0] = torch.tensor([9, 9])
    net = _net()
    change = (net(patches, moved) - net(patches, positions)).abs().amax(dim=1)
    assert (change > 1e-5).all()


def test_x_and_y_are_told_apart() -> None:
    patches, positions = _window()
    net = _net()
    assert not torch.allclose(net(patches, positions.flip(1)), net(patches, positions))


def test_every_parameter_gets_a_gradient() -> None:
    net = _net().train()
    net(*_window()).square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in net.parameters())


def test_a_prediction_depends_on_its_window_alone(small_store: Store, tmp_path: Path) -> None:
    sides = training_of(small_store, tmp_path)
    system = HisToGene(SHORT, Setting())
    system.fit(sides.training)
    slide = sides.test_slides[0]
    predicted = system.predict(slide)
    assert predicted.shape == (len(slide.fine), 20)
    for item in fine_windows([slide], window=SHORT.window, positions=SHORT.positions):
        rows = item.rows
        features = slide.fine.fine_scale(slide.fine.features("fine", rows))
        with torch.inference_mode():
            alone = system.net(features, torch.from_numpy(item.positions))
        np.testing.assert_allclose(predicted[rows], alone.numpy(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("finetune", [False, True])
def test_the_seed_decides_and_the_callers_randomness_is_left_alone(
    small_store: Store, tmp_path: Path, finetune: bool
) -> None:
    assert_the_seed_decides(partial(HisToGene, SHORT), training_of(small_store, tmp_path), finetune=finetune)


def test_fine_tuned_it_learns_from_pixels(small_store: Store, tmp_path: Path) -> None:
    sides = training_of(small_store, tmp_path)
    weights = []
    for lr in (1e-30, 1e-3):
        config = HisToGeneConfig(epochs=1, lr=lr, window=64, width=32, depth=1, heads=4, mlp=64, pixel_side=14)
        system = HisToGene(config, Setting(finetune=True))
        system.fit(sides.training)
        assert np.isfinite(system.predict(sides.test_slides[0])).all()
        weights.append(system.net.patch.weight)
    assert weights[0].shape == (32, 3 * 14 * 14)
    assert not torch.equal(*weights)


@pytest.mark.parametrize(
    "settings", [{"epochs": 0}, {"lr": 0.0}, {"positions": 1}, {"dropout": 1.0}, {"width": 64, "heads": 3}]
)
def test_a_setting_out_of_range_is_refused_by_name(settings: dict[str, float]) -> None:
    assert_refused(HisToGeneConfig, "histogene", **settings)

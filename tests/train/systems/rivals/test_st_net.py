from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

from cache.store import Store
from magnet_core.symmetry import NUM_SYMMETRIES, turn
from tests.train.systems.rivals.setting import (
    assert_learns,
    assert_refused,
    assert_same,
    assert_the_seed_decides,
    training_of,
)
from train.data.rows import Rows
from train.learning.setting import Setting
from train.model.build import rebuild_encoder
from train.settings.rivals import STNetConfig
from train.systems.rivals.patches import PatchEncoder
from train.systems.rivals.st_net import STNet

QUICK = STNetConfig(lr=2e-5, epochs=40)
FINETUNE = STNetConfig(lr=1e-5, batch_size=128, epochs=1)
TUNED = Setting(finetune=True)


def test_st_net_learns_its_training_slides(small_store: Store, tmp_path: Path) -> None:
    assert_learns(STNet(QUICK, Setting()), training_of(small_store, tmp_path))


def test_one_step_moves_weights_and_bias_by_the_gradient_of_the_summed_squared_error(
    small_store: Store, tmp_path: Path
) -> None:
    training = training_of(small_store, tmp_path).training
    system = STNet(STNetConfig(lr=1e-6, batch_size=10_000, epochs=1), Setting())
    system.fit(training)

    features = np.concatenate(
        [
            slide.fine.fine_scale(slide.fine.features("fine", np.arange(len(slide.fine)))).numpy()
            for slide in training.slides
        ]
    )
    labels = training.all_fine()
    errors = labels.mean(axis=0) - labels  # what a head with weights 0 and the mean as bias leaves
    np.testing.assert_allclose(system.head.weight.detach().numpy(), -1e-6 * 2 * errors.T @ features, atol=1e-6)
    np.testing.assert_allclose(system.head.bias.detach().numpy(), labels.mean(axis=0), rtol=1e-4)


def test_an_untrained_prediction_is_the_training_mean_and_training_at_the_published_rate_leaves_it(
    small_store: Store, tmp_path: Path
) -> None:
    sides = training_of(small_store, tmp_path)
    mean = sides.training.all_fine().mean(axis=0)
    system = STNet(STNetConfig(lr=1e-12, epochs=1), Setting())
    system.fit(sides.training)
    np.testing.assert_allclose(
        system.predict(sides.test_slides[0]), np.tile(mean, (len(sides.test_slides[0].fine), 1)), atol=1e-3
    )
    system = STNet(STNetConfig(epochs=5), Setting())
    system.fit(sides.training)
    assert np.abs(system.predict(sides.test_slides[0]) - mean).max() > 0.05


def test_a_prediction_is_the_mean_over_the_eight_symmetries_of_the_pixels(small_store: Store, tmp_path: Path) -> None:
    sides = training_of(small_store, tmp_path)
    slide, rows = sides.test_slides[0], np.arange(12)
    system = STNet(FINETUNE, TUNED)
    system.fit(sides.training)
    encoder = system.encoder.encoder
    assert encoder is not None
    patches = torch.from_numpy(slide.fine.pixels(rows))
    with torch.inference_mode():
        each = [
            system.head(slide.fine.fine_scale(encoder(turn(patches, symmetry), own=slide.fine.own_square).fine))
            for symmetry in range(NUM_SYMMETRIES)
        ]
    assert (each[0] - each[1]).abs().max() > 1e-2
    assert_same(system.predict(slide)[rows], torch.stack(each).mean(dim=0).numpy())


def test_finetuning_moves_the_encoder(small_store: Store, tmp_path: Path) -> None:
    sides = training_of(small_store, tmp_path)
    system = STNet(FINETUNE, TUNED)
    system.fit(sides.training)
    start = rebuild_encoder(sides.training.slides[0].features_header).state_dict()
    assert system.encoder.encoder is not None
    moved = [
        name for name, value in system.encoder.encoder.named_parameters() if not torch.equal(value.cpu(), start[name])
    ]
    assert moved
    assert np.isfinite(system.predict(sides.test_slides[0])).all()


def test_frozen_features_need_no_encoder(small_store: Store, tmp_path: Path) -> None:
    system = STNet(STNetConfig(epochs=1), Setting())
    system.fit(training_of(small_store, tmp_path).training)
    assert list(system.encoder.parameters()) == []


def test_one_seed_gives_one_prediction_and_leaves_the_callers_random_state_alone(
    small_store: Store, tmp_path: Path
) -> None:
    assert_the_seed_decides(partial(STNet, STNetConfig(lr=1e-5, epochs=2)), training_of(small_store, tmp_path))


def test_a_row_is_predicted_alike_alone_and_among_others(small_store: Store, tmp_path: Path) -> None:
    sides = training_of(small_store, tmp_path)
    system = STNet(QUICK, Setting())
    system.fit(sides.training)
    slide = sides.test_slides[0]
    with torch.inference_mode():
        alone = [system.head(system.encoder.fine([Rows(slide, np.array([row]))])) for row in range(0, 100, 25)]
    assert_same(system.predict(slide)[0:100:25], torch.cat(alone).numpy())


@pytest.mark.parametrize("settings", [{"lr": 0.0}, {"momentum": 1.0}, {"batch_size": 0}, {"epochs": 0}])
def test_a_setting_out_of_range_is_refused_by_name(settings: dict[str, float]) -> None:
    assert_refused(STNetConfig, "st_net", **settings)


def test_the_encoder_of_frozen_features_tells_one_view(small_store: Store, tmp_path: Path) -> None:
    slide = training_of(small_store, tmp_path).training.slides[0]
    assert PatchEncoder(slide, Setting()).num_views(slide) == slide.fine.num_views
    assert PatchEncoder(slide, TUNED).num_views(slide) == NUM_SYMMETRIES

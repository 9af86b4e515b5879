from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.special import log_softmax, softmax

from cache.store import Store
from tests.train.systems.rivals.setting import (
    assert_learns,
    assert_refused,
    assert_same,
    assert_the_seed_decides,
    training_of,
)
from train.learning.setting import Setting
from train.model.build import rebuild_encoder
from train.settings.rivals import BLEEPConfig
from train.systems.rivals import bleep
from train.systems.rivals.bleep import BLEEP, ProjectionHead, contrastive_loss, soft_targets

SMALL = BLEEPConfig(width=32, neighbours=10, batch_size=128, epochs=3)


def embeddings(rows: int = 12, width: int = 8) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    return rng.normal(size=(rows, width)), rng.normal(size=(rows, width))


def test_bleep_learns_its_training_slides(small_store: Store, tmp_path: Path) -> None:
    config = BLEEPConfig(width=64, batch_size=128, epochs=80)
    assert_learns(BLEEP(config, Setting()), training_of(small_store, tmp_path))


@pytest.mark.parametrize("temperature", [1.0, 3.0])
def test_the_loss_is_the_mean_cross_entropy_of_both_directions(temperature: float) -> None:
    images, expression = embeddings()
    rows = len(images)
    total = 0.0
    for i in range(rows):
        alike = np.array([images[i] @ images[j] + expression[i] @ expression[j] for j in range(rows)])
        logits = np.array([expression[i] @ images[j] for j in range(rows)]) / temperature
        total -= softmax(alike / 2 / temperature) @ log_softmax(logits)
    every = np.stack(
        [softmax((images @ images[i] + expression @ expression[i]) / 2 / temperature) for i in range(rows)]
    )
    for j in range(rows):
        logits = np.array([expression[i] @ images[j] for i in range(rows)]) / temperature
        total -= every[:, j] @ log_softmax(logits)
    found = contrastive_loss(torch.from_numpy(images), torch.from_numpy(expression), temperature=temperature)
    assert float(found) == pytest.approx(total / (2 * rows), rel=1e-9)


def test_the_targets_of_a_row_sum_to_one_and_favour_what_is_alike() -> None:
    images, expression = (torch.from_numpy(each) for each in embeddings())
    images[3], expression[3] = images[7], expression[7]
    targets = soft_targets(images, expression, temperature=1.0)
    torch.testing.assert_close(targets.sum(dim=1), torch.ones(12, dtype=torch.float64))
    torch.testing.assert_close(targets[3, 3], targets[3, 7])
    assert targets[3, 3] + targets[3, 7] > 0.9


def test_a_batch_that_agrees_has_less_loss_than_one_that_is_mixed_up() -> None:
    images = torch.from_numpy(embeddings()[0])
    matched = contrastive_loss(images, images, temperature=1.0)
    assert matched < 0.5 * contrastive_loss(images, images.roll(1, dims=0), temperature=1.0)


def test_the_projection_is_a_residual_around_its_first_layer() -> None:
    head = ProjectionHead(6, SMALL).eval()
    rows = torch.randn(5, 6)
    torch.nn.init.zeros_(head.mix.weight)
    torch.nn.init.zeros_(head.mix.bias)
    projected = rows @ head.project.weight.T + head.project.bias
    expected = (projected - projected.mean(dim=1, keepdim=True)) / projected.std(dim=1, keepdim=True, correction=0)
    torch.testing.assert_close(head(rows), expected, rtol=1e-3, atol=1e-3)


def test_both_heads_get_a_gradient_everywhere() -> None:
    heads = torch.nn.ModuleList([ProjectionHead(6, SMALL), ProjectionHead(5, SMALL)])
    contrastive_loss(heads[0](torch.randn(9, 6)), heads[1](torch.randn(9, 5)), temperature=1.0).backward()
    silent = [name for name, value in heads.named_parameters() if value.grad is None or not value.grad.any()]
    assert silent == []


def test_a_prediction_is_the_mean_of_the_most_similar_training_rows(small_store: Store, tmp_path: Path) -> None:
    sides = training_of(small_store, tmp_path)
    system, tested = BLEEP(SMALL, Setting()), sides.test_slides[0]
    system.fit(sides.training)
    truth = sides.training.all_fine()
    np.testing.assert_array_equal(system.bank_expression, truth)
    assert len(system.bank_embeddings) == len(truth)

    def unit(rows: np.ndarray) -> np.ndarray:
        result: np.ndarray = rows / np.linalg.norm(rows, axis=1, keepdims=True)
        return result

    cosine = unit(system.embed_images(tested, np.arange(len(tested.fine)))) @ unit(system.bank_embeddings).T
    nearest = np.argsort(-cosine, axis=1)[:, : SMALL.neighbours]
    predicted = system.predict(tested)
    agree = np.isclose(predicted, truth[nearest].mean(axis=1), rtol=1e-4).all(axis=1)
    assert agree.mean() > 0.98  # float32 may swap near ties at the last place
    assert (predicted >= truth.min(axis=0) - 1e-4).all()
    assert (predicted <= truth.max(axis=0) + 1e-4).all()


def test_fewer_training_rows_than_neighbours_give_their_mean(small_store: Store, tmp_path: Path) -> None:
    sides = training_of(small_store, tmp_path)
    system = BLEEP(SMALL.changed(neighbours=10_000, epochs=1), Setting())
    system.fit(sides.training)
    predicted = system.predict(sides.test_slides[0])
    np.testing.assert_allclose(
        predicted, np.tile(sides.training.all_fine().mean(axis=0), (len(predicted), 1)), rtol=1e-4
    )


def test_a_prediction_does_not_depend_on_the_chunks(
    small_store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sides = training_of(small_store, tmp_path)
    system = BLEEP(SMALL, Setting())
    system.fit(sides.training)
    whole = system.predict(sides.test_slides[0])
    monkeypatch.setattr(bleep, "chunk_rows", lambda setting: 7)
    monkeypatch.setattr(bleep, "_SEARCH_ROWS", 50)
    assert_same(system.predict(sides.test_slides[0]), whole)


def test_one_seed_gives_one_prediction_and_leaves_the_callers_random_state_alone(
    small_store: Store, tmp_path: Path
) -> None:
    assert_the_seed_decides(partial(BLEEP, SMALL), training_of(small_store, tmp_path))


def test_finetuning_moves_the_encoder(small_store: Store, tmp_path: Path) -> None:
    sides = training_of(small_store, tmp_path)
    training = replace(sides.training, slides=sides.training.slides[:1])
    system = BLEEP(SMALL.changed(epochs=1), Setting(finetune=True))
    system.fit(training)
    start = rebuild_encoder(training.slides[0].features_header).state_dict()
    assert system.encoder.encoder is not None
    moved = [name for name, value in system.encoder.encoder.named_parameters() if not torch.equal(value, start[name])]
    assert moved
    assert np.isfinite(system.predict(sides.test_slides[0])).all()


@pytest.mark.parametrize(
    "settings", [{"neighbours": 0}, {"temperature": 0.0}, {"dropout": 1.0}, {"weight_decay": -1.0}]
)
def test_a_setting_out_of_range_is_refused_by_name(settings: dict[str, float]) -> None:
    assert_refused(BLEEPConfig, "bleep", **settings)

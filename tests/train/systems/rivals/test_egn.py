from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.stats import pearsonr

from cache.store import Store
from tests.train.systems.rivals.setting import (
    assert_learns,
    assert_refused,
    assert_same,
    assert_the_seed_decides,
    training_of,
)
from train.data.training_side import TrainingSide
from train.learning.setting import Setting
from train.model.build import rebuild_encoder
from train.settings.rivals import EGNConfig
from train.systems.rivals import egn
from train.systems.rivals.egn import EGN, ExemplarBank, ExemplarBlock, ExemplarNetwork, egn_loss

SMALL = EGNConfig(exemplars=4, width=32, depth=4, heads=4, mlp=64, token_grid=2, lr=2e-3, epochs=2)
CPU = torch.device("cpu")


def network(num_tokens: int = 3) -> ExemplarNetwork:
    torch.manual_seed(0)
    return ExemplarNetwork(SMALL, feature_dim=6, num_tokens=num_tokens, mean=torch.arange(5.0)).eval()


def brute_force(queries: np.ndarray, keys: np.ndarray) -> np.ndarray:
    cosine = (queries / np.linalg.norm(queries, axis=1, keepdims=True)) @ (
        keys / np.linalg.norm(keys, axis=1, keepdims=True)
    ).T
    return np.argsort(-cosine, axis=1, kind="stable")


def test_egn_learns_its_training_slides(small_store: Store, tmp_path: Path) -> None:
    assert_learns(EGN(SMALL.changed(epochs=15), Setting()), training_of(small_store, tmp_path))


def test_exemplars_are_training_rows_and_those_of_a_training_row_are_of_another_patient(
    small_store: Store, tmp_path: Path
) -> None:
    sides = training_of(small_store, tmp_path)
    bank = ExemplarBank(sides.training)
    np.testing.assert_array_equal(bank.expression, sides.training.all_fine())
    assert set(bank.slide_of) == {slide.slide_id for slide in sides.training.slides}

    tested = sides.test_slides[0]
    queries = egn.fine_and_scaled(tested, np.arange(len(tested.fine)))
    found = bank.similar(tested, 4, device=CPU)
    assert np.mean(found == brute_force(queries, bank.features)[:, :4]) > 0.99  # float32 may swap near ties

    for slide in sides.training.slides:
        assert not np.isin(bank.patient_of[bank.similar_to_others(slide, 4, device=CPU)], [slide.patient]).any()


def test_of_one_patient_the_exemplars_come_from_its_other_slides(small_store: Store, tmp_path: Path) -> None:
    training = training_of(small_store, tmp_path).training
    training = replace(training, slides=[replace(slide, patient="one") for slide in training.slides])
    bank = ExemplarBank(training)
    for slide in training.slides:
        assert (bank.slide_of[bank.similar_to_others(slide, 4, device=CPU)] != slide.slide_id).all()


def one_slide(training: TrainingSide) -> TrainingSide:
    return replace(training, slides=training.slides[:1])


def test_of_one_slide_a_row_is_never_its_own_exemplar_even_where_patches_are_alike(
    small_store: Store, tmp_path: Path
) -> None:
    training = one_slide(training_of(small_store, tmp_path).training)
    bank, slide = ExemplarBank(training), training.slides[0]
    own = np.arange(len(slide.fine))
    found = bank.similar_to_others(slide, 4, device=CPU)
    assert found.shape == (len(own), 4)
    assert (found != own[:, None]).all()
    ranked = brute_force(bank.features, bank.features)
    expected = np.stack([row[row != index][:4] for index, row in enumerate(ranked)])
    assert np.mean(found == expected) > 0.99
    bank.features = np.ones_like(bank.features)  # every patch ties with every other
    assert (bank.similar_to_others(slide, 4, device=CPU) != own[:, None]).all()


def test_a_closed_gate_lets_query_and_keys_pass_unchanged() -> None:
    block = ExemplarBlock(8)
    torch.nn.init.zeros_(block.gate.weight)
    torch.nn.init.constant_(block.gate.bias, -1e4)
    query, keys = torch.randn(3, 8), torch.randn(3, 4, 8)
    new_query, new_keys = block(query, keys)
    assert torch.equal(new_query, query)
    assert torch.equal(new_keys, keys)


def test_the_block_is_its_formula_exemplar_by_exemplar() -> None:
    torch.manual_seed(1)
    block = ExemplarBlock(8)
    query, keys = torch.randn(3, 8), torch.randn(3, 4, 8)
    new_query, new_keys = block(query, keys)
    for row in range(3):
        to_query = torch.zeros(8)
        for index in range(4):
            pair = block.norm(torch.cat([query[row] - keys[row, index], keys[row, index]]))
            gated = torch.sigmoid(block.gate(pair)) * block.change(pair)
            to_query += gated[:8] / 4
            torch.testing.assert_close(new_keys[row, index], keys[row, index] + gated[8:])
        torch.testing.assert_close(new_query[row], query[row] + to_query)


def test_permuting_the_exemplars_permutes_the_keys_and_leaves_the_output() -> None:
    order = torch.tensor([2, 0, 3, 1])
    block = ExemplarBlock(8)
    query, keys = torch.randn(3, 8), torch.randn(3, 4, 8)
    (first_query, first_keys), (second_query, second_keys) = block(query, keys), block(query, keys[:, order])
    torch.testing.assert_close(first_keys[:, order], second_keys)
    torch.testing.assert_close(first_query, second_query)

    whole, patches, exemplars = network(), torch.randn(3, 4, 6), torch.randn(3, 4, 11)
    torch.testing.assert_close(whole(patches, exemplars), whole(patches, exemplars[:, order]))


def test_exemplars_and_the_place_of_a_token_change_the_output() -> None:
    whole, patches, exemplars = network(), torch.randn(3, 4, 6), torch.randn(3, 4, 11)
    output = whole(patches, exemplars)
    assert (whole(patches, exemplars + 1) - output).abs().max() > 1e-3
    assert (whole(patches[:, [0, 3, 2, 1]], exemplars) - output).abs().max() > 1e-4


def test_every_parameter_gets_a_gradient() -> None:
    whole = network()
    whole(torch.randn(3, 4, 6), torch.randn(3, 4, 11)).square().sum().backward()
    silent = [name for name, value in whole.named_parameters() if value.grad is None or not value.grad.any()]
    assert silent == []


def test_the_loss_is_the_squared_error_and_each_genes_correlation_over_the_batch() -> None:
    rng = np.random.default_rng(0)
    predicted, truth = rng.normal(size=(30, 5)), rng.normal(size=(30, 5))
    correlations = [pearsonr(predicted[:, gene], truth[:, gene]).statistic for gene in range(5)]
    expected = np.square(predicted - truth).mean() + 0.5 * (1 - np.mean(correlations))
    found = egn_loss(torch.from_numpy(predicted), torch.from_numpy(truth), pcc_weight=0.5)
    assert float(found) == pytest.approx(expected, abs=1e-6)


def test_a_prediction_does_not_depend_on_the_chunks(
    small_store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sides = training_of(small_store, tmp_path)
    system = EGN(SMALL, Setting())
    system.fit(sides.training)
    whole = system.predict(sides.test_slides[0])
    monkeypatch.setattr(egn, "chunk_rows", lambda setting: 7)
    monkeypatch.setattr(egn, "_SEARCH_ROWS", 50)
    assert_same(system.predict(sides.test_slides[0]), whole)


def test_one_seed_gives_one_prediction_and_leaves_the_callers_random_state_alone(
    small_store: Store, tmp_path: Path
) -> None:
    assert_the_seed_decides(partial(EGN, SMALL.changed(epochs=1)), training_of(small_store, tmp_path))


def test_finetuning_moves_the_encoder_and_leaves_the_exemplars(small_store: Store, tmp_path: Path) -> None:
    sides = training_of(small_store, tmp_path)
    training = one_slide(sides.training)
    system = EGN(SMALL.changed(epochs=1, batch_size=100), Setting(finetune=True))
    system.fit(training)
    start = rebuild_encoder(training.slides[0].features_header).state_dict()
    assert system.encoder.encoder is not None
    moved = [name for name, value in system.encoder.encoder.named_parameters() if not torch.equal(value, start[name])]
    assert moved
    assert len(system.net.position) == 1 + SMALL.token_grid**2
    np.testing.assert_array_equal(
        system.bank.features, egn.fine_and_scaled(training.slides[0], np.arange(len(training.slides[0].fine)))
    )
    assert np.isfinite(system.predict(sides.test_slides[0])).all()


@pytest.mark.parametrize("settings", [{"exemplars": 0}, {"dropout": 1.0}, {"lr": 0.0}, {"width": 30, "heads": 16}])
def test_a_setting_out_of_range_is_refused_by_name(settings: dict[str, float]) -> None:
    assert_refused(EGNConfig, "egn", **settings)

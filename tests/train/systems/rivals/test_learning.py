from pathlib import Path

import numpy as np
import pytest
import torch

from cache.store import Store
from tests.train.systems.rivals.setting import training_of
from train.data.rows import Rows
from train.learning.setting import Setting
from train.systems.rivals.learning import chunk_rows, cut, mean_head, seeded
from train.systems.rivals.patches import PatchEncoder


def test_what_is_drawn_within_follows_the_seed_and_what_is_drawn_after_does_not() -> None:
    drawn = []
    for seed in (0, 0, 1):
        torch.manual_seed(7)
        with seeded(Setting(seed=seed)):
            inside = torch.rand(3)
        drawn.append((inside, torch.rand(3)))
    assert torch.equal(drawn[0][0], drawn[1][0])
    assert not torch.equal(drawn[0][0], drawn[2][0])
    assert torch.equal(drawn[0][1], drawn[2][1])


def test_the_random_state_comes_back_after_an_error() -> None:
    state = torch.get_rng_state()
    with pytest.raises(RuntimeError, match="shape"), seeded(Setting()):
        torch.rand(3).reshape(2)
    assert torch.equal(torch.get_rng_state(), state)


def test_a_head_without_inputs_predicts_the_mean() -> None:
    mean = torch.arange(4.0)
    assert torch.equal(mean_head(3, mean)(torch.zeros(2, 3)), mean.expand(2, 4))


def test_cut_rows_are_all_rows_in_their_order() -> None:
    parts = cut(np.arange(10), 4)
    assert [len(part) for part in parts] == [4, 4, 2]
    np.testing.assert_array_equal(np.concatenate(parts), np.arange(10))


def test_fewer_rows_are_predicted_at_a_time_where_an_encoder_runs() -> None:
    assert chunk_rows(Setting(finetune=True)) < chunk_rows(Setting())


@pytest.mark.parametrize(("target", "finetune"), [(8, False), (8, True), (55, False), (55, True)])
def test_fine_features_and_tokens_of_one_pass_are_those_of_two(
    small_store: Store, tmp_path: Path, target: int, finetune: bool
) -> None:
    slide = training_of(small_store, tmp_path, f"data.target={target}").training.slides[0]
    encoder, pieces = PatchEncoder(slide, Setting(finetune=finetune)), [Rows(slide, np.array([0, 3, 4]))]
    with torch.no_grad():
        both = encoder.fine_and_tokens(pieces, token_grid=2)
        torch.testing.assert_close(both[:, 0], encoder.fine(pieces))
        torch.testing.assert_close(both[:, 1:], encoder.tokens(pieces, token_grid=2))
    assert both.shape[1] == (2 if (target, finetune) == (8, False) else 5)

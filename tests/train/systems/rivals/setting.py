"""What the tests of the rival systems share: a fold to learn from, and what it means that a system learnt it."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from cache.store import Store
from magnet_core.errors import MagnetError
from magnet_core.metrics import combine, evaluate
from tests.train.setting import config
from train.data.fold_sides import FoldSides, open_fold
from train.learning.setting import Setting
from train.systems.base import System
from train.systems.plain.gene_mean import GeneMean

LEAST_PCC = 0.15
LARGEST_MSE = 0.95  # of the gene mean's


def training_of(store: Store, tmp_path: Path, *settings: str) -> FoldSides:
    """The first fold of the small store, 20 genes; `settings` are those of `train fit`, such as `data.target=16`."""
    return open_fold(config(store, tmp_path, *settings))


def assert_learns(system: System, sides: FoldSides) -> None:
    """Fit a system; on its own training slides it must beat the gene mean, and correlate per gene over bins."""
    floor = GeneMean()
    for learnt in (system, floor):
        learnt.fit(sides.training)
    scores, floor_scores = (
        combine([evaluate(learnt.predict(slide), sides.training.fine(slide)) for slide in sides.training.slides])
        for learnt in (system, floor)
    )
    assert scores.pcc_gene > LEAST_PCC, f"correlation per gene {scores.pcc_gene:.3f}"
    share = scores.mse / floor_scores.mse
    assert share < LARGEST_MSE, f"{share:.3f} of the gene mean's error"


def assert_same(first: np.ndarray, second: np.ndarray) -> None:
    """Two predictions (N, P) are equal up to the rounding of sums over batches of other sizes."""
    np.testing.assert_allclose(first, second, rtol=1e-4, atol=1e-5)


def assert_the_seed_decides(build: Callable[[Setting], System], sides: FoldSides, *, finetune: bool = False) -> None:
    """One seed gives one prediction, another another, and the caller's random state is left alone."""
    predictions = []
    for seed in (3, 3, 4):
        torch.rand(seed)
        system = build(Setting(seed=seed, finetune=finetune))
        before = torch.get_rng_state()
        system.fit(sides.training)
        predictions.append(system.predict(sides.test_slides[0]))
        assert torch.equal(torch.get_rng_state(), before)
    np.testing.assert_array_equal(predictions[0], predictions[1])
    assert not np.allclose(predictions[0], predictions[2])


def assert_refused(build: Callable[..., object], table: str, **settings: float) -> None:
    """A setting is refused under the name by which it is set; the first of several is named."""
    with pytest.raises(MagnetError, match=rf"^rivals\.{table}\.{next(iter(settings))}: expected .*, found .*; change "):
        build(**settings)

from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import torch

from magnet_core.records import Genes
from magnet_core.settings.normalise import NormaliseConfig
from tests.train.hest_literal import probe
from train.data.slide import Slide
from train.data.training_side import TrainingSide
from train.systems.plain.hest_ridge import HestRidge

NUM_ROWS, WIDTH, NUM_GENES = 400, 320, 12


@dataclass(frozen=True)
class Fine:
    """A fine level of which nothing but its pooled features is there, one of them the same in every row."""

    values: np.ndarray
    name: str = "fine"
    width: int = WIDTH

    def __len__(self) -> int:
        return len(self.values)

    def features(self, kind: str, rows: np.ndarray) -> torch.Tensor:
        assert kind == "pooled"
        return torch.from_numpy(self.values[rows])


@dataclass(frozen=True)
class OfFeatures:
    slide_id: str
    fine: Fine
    patient: str = ""


def drawn(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Features (N, D) of many scales, as float16, and counts (N, P) that follow some of them."""
    rng = np.random.default_rng(seed)
    hidden = rng.normal(size=(NUM_ROWS, WIDTH)) * np.geomspace(3, 0.01, WIDTH)
    values = hidden @ np.random.default_rng(9).normal(size=(WIDTH, WIDTH)) + 7
    values[:, 5] = 0.1
    return values.astype(np.float16), rng.poisson(np.exp(0.3 * hidden[:, :NUM_GENES]))


def test_its_correlations_are_those_of_256_exact_components_and_a_ridge_without_intercept() -> None:
    sides = {name: drawn(seed) for seed, name in enumerate(("A", "B", "unseen"))}
    slides = {name: cast(Slide, OfFeatures(name, Fine(values))) for name, (values, _) in sides.items()}
    labels = {name: np.log1p(counts).astype(np.float32) for name, (_, counts) in sides.items()}
    names = np.array([f"G{number}" for number in range(NUM_GENES)])
    system = HestRidge()
    of_training: dict[str, Any] = {name: {"fine": labels[name]} for name in ("A", "B")}
    side = TrainingSide([slides["A"], slides["B"]], of_training, Genes(names, names), NormaliseConfig(library="none"))
    system.fit(side)
    predicted = system.predict(slides["unseen"])
    assert predicted.dtype == np.float32
    found = [np.corrcoef(predicted[:, gene], labels["unseen"][:, gene])[0, 1] for gene in range(NUM_GENES)]
    training = np.concatenate([sides["A"][0], sides["B"][0]]), np.concatenate([sides["A"][1], sides["B"][1]])
    np.testing.assert_allclose(found, probe(training, sides["unseen"]), rtol=0, atol=1e-6)
    assert np.mean(found) > 0.3
    of_rows = np.concatenate([system.predict(slides[name]) for name in ("A", "B")])
    np.testing.assert_allclose(of_rows.mean(axis=0), side.all_fine().mean(axis=0), atol=1e-5)

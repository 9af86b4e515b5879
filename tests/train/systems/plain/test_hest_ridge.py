from pathlib import Path

import numpy as np

from cache.store import Store
from tests.train.setting import config
from train.data.fold_sides import open_fold
from train.systems.plain.hest_ridge import COMPONENTS, PENALTY, HestRidge
from train.systems.plain.ridge import Standardiser, principal_axes


def test_it_is_the_normal_equations_of_the_published_penalty_around_the_training_mean(
    small_store: Store, tmp_path: Path
) -> None:
    sides = open_fold(config(small_store, tmp_path))
    slides, labels = sides.training.slides, sides.training.all_fine().astype(np.float64)
    inputs = np.concatenate(
        [slide.fine.features("pooled", np.arange(len(slide.fine))).numpy() for slide in slides]
    ).astype(np.float32)
    scale = Standardiser(inputs)
    axes = principal_axes(scale(inputs), COMPONENTS)
    components = (scale(inputs) @ axes).astype(np.float64)
    penalty = PENALTY / (components.shape[1] * labels.shape[1])
    gram = components.T @ components + penalty * np.eye(components.shape[1])
    weights = np.linalg.solve(gram, components.T @ (labels - labels.mean(axis=0)))
    (slide,) = sides.test_slides
    unseen = scale(slide.fine.features("pooled", np.arange(len(slide.fine))).numpy().astype(np.float32)) @ axes

    system = HestRidge()
    system.fit(sides.training)
    np.testing.assert_allclose(system.predict(slide), unseen @ weights + labels.mean(axis=0), atol=1e-5)

"""A ridge's share in the predictions of a network, and the run that keeps both."""

from pathlib import Path

import numpy as np
import pytest

from cache.store import Store
from magnet_core.errors import MagnetError
from magnet_core.levels import find_target
from tests.train.setting import config
from train.data.slide import open_slide_data
from train.learning.trained_run import load_run
from train.model.whole_slide import predict_slide
from train.pipeline import fit
from train.studies.cell import CellResult
from train.studies.open_fold import OpenFold
from train.systems.plain.ridge import FeatureRidge


def fitted(store: Store, runs: Path, *settings: str) -> CellResult:
    return fit(config(store, runs, "baselines=false", f"name={'-'.join(settings)}", *settings)).cell()


def test_a_prediction_is_the_weighted_mean_of_network_and_ridge(small_store: Store, tmp_path: Path) -> None:
    shares = {share: fitted(small_store, tmp_path, "encoder.mode=frozen", f"ridge={share}") for share in (0, 0.25, 1)}
    side = OpenFold().open(shares[0].cell)
    ridge = FeatureRidge()
    ridge.fit(side.training)
    for slide in side.test_slides:
        network, mixed, linear = (cell.prediction(slide.slide_id) for cell in shares.values())
        np.testing.assert_allclose(linear, ridge.predict(slide), atol=2e-5)
        np.testing.assert_allclose(mixed, 0.75 * network + 0.25 * linear, atol=2e-5)
        assert not np.allclose(network, linear, atol=0.1)


@pytest.mark.parametrize("multires", [True, False])
def test_a_run_keeps_its_ridge_whatever_levels_it_reads(small_store: Store, tmp_path: Path, multires: bool) -> None:
    cell = fitted(small_store, tmp_path, "encoder.mode=frozen", "ridge=0.5", f"model.use_multires={multires}")
    run = load_run(cell.folder)
    assert run.predictor.linear is not None
    (slide_id,) = cell.cell.fold.test
    slide = open_slide_data(small_store, slide_id, find_target(8), cell.cell.config.data)
    np.testing.assert_array_equal(predict_slide(run.predictor, slide), cell.prediction(slide_id))
    np.testing.assert_allclose(predict_slide(run.predictor, slide, batch_size=7), cell.prediction(slide_id), atol=1e-5)
    widths = [level.width for level in slide.contexts.values()] if multires else []
    assert len(run.predictor.linear.weight) == slide.fine.fine_width + sum(widths)


def test_where_the_encoder_is_trained_there_is_none(small_store: Store, tmp_path: Path) -> None:
    cell = fitted(small_store, tmp_path, "optim.epochs=1")
    assert load_run(cell.folder).predictor.linear is None
    with pytest.raises(MagnetError, match=r"ridge: expected 0 where the bin encoder is trained, .* found 0\.5; --bins"):
        fitted(small_store, tmp_path, "optim.epochs=1", "ridge=0.5")

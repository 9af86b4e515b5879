import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from cache.store import Store
from extract.config import Stain
from magnet_core.errors import MagnetError
from tests.train.conftest import BACKBONE
from tests.train.predict.from_image import extracted, make_setting, predict, read
from train.learning.stage_one import StageOne
from train.learning.trained_run import load_run, save_run


@pytest.mark.parametrize(("stain", "working_mpp"), [("matched", 0.25), ("as_is", 0.5)])
def test_an_image_is_brought_to_the_stain_and_resolution_that_a_run_was_trained_on(
    small_store: Store, tmp_path: Path, stain: Stain, working_mpp: float
) -> None:
    (tmp_path / "setting").mkdir()
    setting = make_setting(small_store, tmp_path / "setting")
    run = shutil.copytree(setting.runs["frozen"], tmp_path / "run")
    store = Store(extracted(setting.image, tmp_path, stain=stain, working_mpp=working_mpp))
    headers = store.geometry("new-slide").header["settings"], store.features("new-slide", BACKBONE).header
    trained = load_run(run)
    (run / "run.json").unlink()
    (run / "model.safetensors").unlink()
    digest = headers[1]["settings_digest"]
    save_run(run, replace(trained, features_settings_digest=digest, stage_one=StageOne.of(*headers)), extra={})
    predict(run, "--image", setting.image, "--mpp", 0.25, "--out", tmp_path / "a.h5ad")
    predict(run, "--slide", "new-slide", "--store", store.root, "--out", tmp_path / "b.h5ad")
    np.testing.assert_allclose(read(tmp_path / "a.h5ad").X, read(tmp_path / "b.h5ad").X, rtol=0, atol=1e-5)
    with pytest.raises(MagnetError, match="expected the settings of the training store"):
        predict(run, "--slide", "new-slide", "--store", setting.store, "--out", tmp_path / "c.h5ad")

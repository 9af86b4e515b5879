"""One small synthetic data set for all tests of stage one."""

from pathlib import Path

import pytest

from extract.synthetic.config import SynthConfig
from extract.synthetic.dataset import synthesise


@pytest.fixture(scope="session")
def small_samples(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """samples.csv of two small synthetic slides."""
    return synthesise(tmp_path_factory.mktemp("synthetic"), SynthConfig(slides=2, seed=1, size_mm=0.4, genes=60))

"""One small store for all tests of stage two."""

import pytest

from cache.store import Store
from extract.config import EmbeddingConfig, GeometryConfig, RunConfig
from extract.pipeline import run
from extract.synthetic.config import SynthConfig
from extract.synthetic.dataset import synthesise

BACKBONE = "timm:test_convnext"


@pytest.fixture(scope="session")
def small_store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """Three small synthetic slides of three patients, extracted with a small random encoder."""
    folder = tmp_path_factory.mktemp("stage_two")
    samples = synthesise(folder / "data", SynthConfig(slides=3, seed=2, size_mm=0.4, genes=60))
    config = RunConfig(
        samples=samples,
        store=folder / "store",
        geometry=GeometryConfig(bins=200, spots=30, window=10),
        embedding=EmbeddingConfig(backbone=BACKBONE, weights="random", token_grid=2),
    )
    assert run(config).failed == {}
    return Store(config.store)

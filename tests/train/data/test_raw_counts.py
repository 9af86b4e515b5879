"""Raw counts reach the loss as they were counted, and a run learns by them."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from cache.store import Store
from magnet_core.errors import MagnetError
from magnet_core.records import Genes
from tests.train.setting import NUM_GENES, config, labels_of, parts
from train.data.raw_counts import RawCounts
from train.data.subgraph import SubgraphSpec, build_batch
from train.pipeline import fit


@pytest.mark.parametrize("library", ["panel", "all", "none"])
def test_counts_and_libraries_are_what_expression_was_made_of(small_store: Store, tmp_path: Path, library: str) -> None:
    settings = config(small_store, tmp_path, "encoder.mode=frozen", f"data.normalise.library={library}")
    slide, predictor = parts(small_store, settings)
    panel = Genes(slide.genes.ids[:NUM_GENES], slide.genes.names[:NUM_GENES])
    raw = RawCounts.of([slide], panel, settings.data.normalise)
    spec = SubgraphSpec.to_train(predictor.model, halo=1, pixels=False)
    batch = build_batch(slide, np.arange(30, 60), labels_of(slide, settings), spec=spec, device=torch.device("cpu"))
    labels = raw.labels_of(batch)
    assert labels.counts is not None
    assert labels.library is not None
    counted = ~labels.fine.isnan()
    assert counted.any()
    expression = torch.log1p(labels.counts * (labels.scale / labels.library.clamp(min=1))[:, None])
    torch.testing.assert_close(expression[counted], labels.fine[counted])
    torch.testing.assert_close(labels.counts, labels.counts.round())


@pytest.mark.parametrize("likelihood", ["poisson", "negative_binomial"])
def test_a_run_learns_by_a_likelihood(small_store: Store, tmp_path: Path, likelihood: str) -> None:
    result = fit(
        config(small_store, tmp_path, f"loss.likelihood={likelihood}", "encoder.mode=frozen", "optim.epochs=5")
    )
    losses = json.loads((result.cell().folder / "run.json").read_text())["losses"]
    assert losses[-1] < losses[0]


def test_a_likelihood_wants_log_expression(small_store: Store, tmp_path: Path) -> None:
    wrong = config(small_store, tmp_path, "loss.likelihood=poisson", "data.normalise.log=false", "encoder.mode=frozen")
    with pytest.raises(MagnetError, match=r"expected log expression .*, found data\.normalise\.log=false"):
        fit(wrong)

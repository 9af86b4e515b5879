"""A slide as stage two reads it from a store."""

import numpy as np
import pytest
from scipy import sparse

from cache.store import Store
from magnet_core.expression import NormaliseConfig, columns_of, expression
from magnet_core.levels import find_target
from magnet_core.records import Genes
from train import dataset
from train.config import DataConfig
from train.dataset import Slide, open_slide_data


def open_first(store: Store) -> Slide:
    slide_id = store.slide_ids()[0]
    (features,) = store.feature_files(slide_id)
    config = DataConfig(store=store.root, backbone=features.backbone)
    return open_slide_data(store, slide_id, find_target(8), config)


def whole_counts(store: Store, level: str, num_genes: int) -> sparse.csr_matrix:
    with store.geometry(store.slide_ids()[0]) as geometry:
        values, genes, row_ends = (geometry.read(f"{level}/counts/{part}") for part in ("values", "indices", "indptr"))
    return sparse.csr_matrix((values, genes, row_ends), shape=(len(row_ends) - 1, num_genes))


@pytest.mark.parametrize("library", ["panel", "all", "none"])
def test_labels_and_means_read_block_by_block_are_those_of_all_rows(
    small_store: Store, monkeypatch: pytest.MonkeyPatch, library: str
) -> None:
    monkeypatch.setattr(dataset, "_COUNT_ROWS", 7)
    slide = open_first(small_store)
    panel = Genes(np.append(slide.genes.ids[5:9], "absent"), np.append(slide.genes.names[5:9], "absent"))
    config = NormaliseConfig(library=library)  # type: ignore[arg-type]
    for level, labels in slide.labels(panel, config).items():
        counts = whole_counts(small_store, level, len(slide.genes))
        assert labels is not None
        np.testing.assert_array_equal(labels, expression(counts, columns_of(slide.genes, panel.ids), config))
    counts = whole_counts(small_store, slide.fine.name, len(slide.genes))
    np.testing.assert_allclose(slide.mean_counts(), counts.toarray().mean(axis=0), rtol=1e-12)

"""A slide as stage two reads it from a store."""

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy import sparse

from cache.reader import ArrayFile
from cache.store import Store
from cache.writer import ArrayWriter
from magnet_core.errors import MagnetError
from magnet_core.expression import columns_of, expression
from magnet_core.levels import find_target
from magnet_core.records import Genes
from magnet_core.settings.normalise import NormaliseConfig
from train.data import count_blocks
from train.data.slide import LevelData, Slide, open_slide_data
from train.settings.fit import DataConfig


def test_a_scale_that_a_prediction_asked_for_first_serves_a_training(small_store: Store) -> None:
    slide = open_first(small_store)
    with torch.inference_mode():
        slide.fine.scale(torch.zeros(1, slide.fine.width))
    features = torch.zeros(1, slide.fine.width, requires_grad=True)
    slide.fine.scale(features).sum().backward()
    assert features.grad is not None


def opened(store: Store, um: int, **settings: Any) -> Slide:
    slide_id = store.slide_ids()[0]
    (features,) = store.feature_files(slide_id)
    config = DataConfig(store=store.root, backbone=features.backbone, **settings)
    return open_slide_data(store, slide_id, find_target(um), config)


def open_first(store: Store) -> Slide:
    return opened(store, 8)


def whole_counts(store: Store, level: str, num_genes: int) -> sparse.csr_matrix:
    with store.geometry(store.slide_ids()[0]) as geometry:
        values, genes, row_ends = (geometry.read(f"{level}/counts/{part}") for part in ("values", "indices", "indptr"))
    return sparse.csr_matrix((values, genes, row_ends), shape=(len(row_ends) - 1, num_genes))


@pytest.mark.parametrize("library", ["panel", "all", "none"])
def test_labels_and_means_read_block_by_block_are_those_of_all_rows(
    small_store: Store, monkeypatch: pytest.MonkeyPatch, library: str
) -> None:
    monkeypatch.setattr(count_blocks, "_ROWS", 7)
    slide = open_first(small_store)
    panel = Genes(np.append(slide.genes.ids[5:9], "absent"), np.append(slide.genes.names[5:9], "absent"))
    config = NormaliseConfig(library=library)  # type: ignore[arg-type]
    for level, labels in slide.labels(panel, config).items():
        counts = whole_counts(small_store, level, len(slide.genes))
        assert labels is not None
        np.testing.assert_array_equal(labels, expression(counts, columns_of(slide.genes, panel.ids), config))
    counts = whole_counts(small_store, slide.fine.name, len(slide.genes))
    np.testing.assert_allclose(slide.mean_counts(), counts.toarray().mean(axis=0), rtol=1e-12)


def test_tokens_get_the_class_token_of_the_pooled_feature_beside_them(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    pooled, tokens = (rng.normal(size=shape).astype(np.float16) for shape in ((5, 6), (5, 4, 3)))
    wide = np.concatenate([np.repeat(pooled[:, None, :3], 4, axis=1), tokens], axis=2)
    arrays = {"spot/pooled": pooled, "spot/tokens": tokens, "wide/pooled": pooled, "wide/tokens": wide}
    for name in ("spot", "wide"):
        arrays |= {f"{name}/centres_um": np.zeros((5, 2)), f"{name}/edges": np.zeros((5, 1), np.int32)}
    with ArrayWriter(tmp_path / "file.lmdb", {}) as writer:
        for name, values in arrays.items():
            writer.put(name, values)
        writer.commit()
    file, rows, cpu = ArrayFile(tmp_path / "file.lmdb"), np.array([4, 0, 4]), torch.device("cpu")
    for name in ("spot", "wide"):  # as stored now, and as stored before
        level = LevelData(name, file, file, config=DataConfig(standardise=False))
        np.testing.assert_array_equal(level.features("tokens", rows, device=cpu).numpy(), wide[rows])
        for kind in ("pooled", "tokens"):
            level.hold(kind, cpu)
        np.testing.assert_array_equal(level.features("tokens", rows, device=cpu).numpy(), wide[rows])
        np.testing.assert_array_equal(level.features("pooled", rows, device=cpu).numpy(), pooled[rows])


def test_fine_features_are_the_pooled_one_and_that_of_the_own_square(small_store: Store) -> None:
    rows = np.array([7, 0, 7])
    for um in (8, 16, 55):
        fine = opened(small_store, um).fine
        pooled, own = fine.features("pooled", rows), fine.features("own", rows)
        assert torch.equal(fine.features("fine", rows), torch.cat([pooled, own], dim=1))
        assert fine.fine_width == pooled.shape[1] + own.shape[1]
        scaled = fine.fine_scale(fine.features("fine", np.arange(len(fine))))
        torch.testing.assert_close(scaled.mean(dim=0), torch.zeros(fine.fine_width), atol=1e-4, rtol=0)
        before = opened(small_store, um, own=False).fine
        assert torch.equal(before.features("fine", rows), pooled)
        assert before.own_square is None


def test_own_squares_of_the_levels_as_shares_of_their_patches(small_store: Store) -> None:
    shares = {}
    for um in (8, 16, 55):
        square = opened(small_store, um).fine.own_square
        assert square is not None
        shares[um] = (square.share, square.maps)
    assert shares == {8: (8 / 28, 2), 16: (16 / 28, 2), 55: (1.0, 2)}


def test_around_a_bin_lie_the_tiles_that_enclose_it_and_a_spot_has_its_own_centre(small_store: Store) -> None:
    slide = opened(small_store, 8)
    for name, level in slide.contexts.items():
        around = slide.around[name]
        np.testing.assert_allclose(around.weights.sum(axis=1), 1, rtol=1e-6)
        apart = np.abs(slide.fine.centres_um[:, None] - level.centres_um[around.rows]) / level.patch_um
        assert (apart[around.weights > 0] < 1 + 1e-9).all()
        holds = (around.rows == slide.pairs[name][:, None]) & (around.weights > 0)
        assert holds.any(axis=1).all()
        assert around.weights[holds].min() >= 0.25 - 1e-6
    assert {name: around.rows.shape[1] for name, around in opened(small_store, 55).around.items()} == {
        "centre": 1,
        "region": 4,
    }
    paired = opened(small_store, 8, contexts="paired")
    for name, pairs in paired.pairs.items():
        np.testing.assert_array_equal(paired.around[name].rows[:, 0], pairs)


def flip_a_byte(path: Path, array: str, block: int) -> None:
    """Change one byte in the middle of a block of a finished file."""
    with ArrayFile(path) as file:
        stored = file.block(array, block).tobytes()
    content = bytearray(path.read_bytes())
    assert content.count(stored) == 1
    content[content.index(stored) + len(stored) // 2] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize("array", ["bin_008um/pixels", "bin_008um/counts/values", "spot/tokens", "region/pooled"])
def test_a_slide_with_a_flipped_byte_is_not_opened(small_store: Store, tmp_path: Path, array: str) -> None:
    store = Store(shutil.copytree(small_store.root, tmp_path / "store"))
    slide_id = store.slide_ids()[0]
    (features,) = store.feature_files(slide_id)
    path = store.geometry_path(slide_id) if array.startswith("bin") else features.path
    flip_a_byte(path, array, 0)
    with pytest.raises(MagnetError, match=f"{path}: expected .*, found {array}: block 0 does not match its checksum"):
        open_first(store)


def test_levels_that_the_target_has_no_use_for_may_be_damaged(small_store: Store, tmp_path: Path) -> None:
    store = Store(shutil.copytree(small_store.root, tmp_path / "store"))
    flip_a_byte(store.geometry_path(store.slide_ids()[0]), "bin_016um/pixels", 0)
    assert len(open_first(store).fine) > 0


def test_training_on_a_damaged_store_ends_with_one_line(small_store: Store, tmp_path: Path) -> None:
    store = Store(shutil.copytree(small_store.root, tmp_path / "store"))
    for slide_id in store.slide_ids():  # whichever are drawn for training
        flip_a_byte(store.geometry_path(slide_id), "bin_008um/pixels", 0)
    (features,) = store.feature_files(slide_id)
    options = ["--store", str(store.root), "--runs", str(tmp_path / "runs"), "--backbone", features.backbone]
    done = subprocess.run(
        [sys.executable, "-m", "train", "fit", *options, "--set", "data.panel=20"],
        capture_output=True,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        check=False,
    )
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith(f"error: {store.root}")
    assert "geometry.lmdb: expected every block as it was written, found bin_008um/pixels: block 0" in done.stderr
    assert "Traceback" not in done.stderr
    assert not list(tmp_path.rglob("summary.json"))

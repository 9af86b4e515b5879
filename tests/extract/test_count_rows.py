"""Rows of counts gathered a part at a time, against the rows of a matrix."""

from pathlib import Path

import numpy as np
import pytest
from scipy import sparse

from cache.reader import ArrayFile
from cache.writer import ArrayWriter
from extract import geometry
from extract.count_rows import CountRows


@pytest.fixture
def counts() -> CountRows:
    rng = np.random.default_rng(0)
    dense = rng.poisson(0.4, (40, 9)).astype(np.int32)
    dense[[3, 11, 12]] = 0  # rows without a count, two of them side by side
    return CountRows(sparse.csr_matrix(dense), rng.permutation(40)[:30])


@pytest.mark.parametrize("step", [1, 2, 7, 1000])
def test_parts_of_any_length_make_up_the_whole(counts: CountRows, step: int) -> None:
    whole = counts.source[counts.rows]
    row_ends = counts.row_ends()
    np.testing.assert_array_equal(row_ends, whole.indptr)
    starts = range(0, whole.nnz, step)
    parts = [counts.stored(row_ends, start, min(start + step, whole.nnz)) for start in starts]
    np.testing.assert_array_equal(np.concatenate([genes for genes, _ in parts]), whole.indices)
    np.testing.assert_array_equal(np.concatenate([values for _, values in parts]), whole.data)


@pytest.mark.parametrize("empty", [False, True])
def test_what_is_written_is_what_is_read(
    counts: CountRows, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, empty: bool
) -> None:
    if empty:
        counts = CountRows(sparse.csr_matrix(counts.source.shape, dtype=np.int32), counts.rows)
    whole = counts.source[counts.rows]
    monkeypatch.setattr("cache.schema.default_block_rows", lambda row_bytes: 8)
    with ArrayWriter(tmp_path / "counts.lmdb", {}) as writer:
        geometry.put_counts(writer, "level/counts", counts)
        assert len(writer.missing_blocks("level/counts/values")) == 0
        writer.commit()
    with ArrayFile(tmp_path / "counts.lmdb") as stored:
        assert stored.spec("level/counts/values").num_blocks == -(-whole.nnz // 8)
        for name, values in (("indptr", whole.indptr), ("indices", whole.indices), ("values", whole.data)):
            np.testing.assert_array_equal(stored.read(f"level/counts/{name}"), values)


def test_a_run_that_was_stopped_between_genes_and_values_is_taken_up(counts: CountRows, tmp_path: Path) -> None:
    row_ends = counts.row_ends()
    with ArrayWriter(tmp_path / "counts.lmdb", {}) as writer:
        writer.declare("level/counts/indices", (int(row_ends[-1]),), np.int32)
        writer.put("level/counts/indices", counts.stored(row_ends, 0, int(row_ends[-1]))[0])
    with ArrayWriter(tmp_path / "counts.lmdb", {}) as writer:
        geometry.put_counts(writer, "level/counts", counts)
        writer.commit()
    with ArrayFile(tmp_path / "counts.lmdb") as stored:
        np.testing.assert_array_equal(stored.read("level/counts/values"), counts.matrix().data)
        np.testing.assert_array_equal(stored.read("level/counts/indices"), counts.matrix().indices)

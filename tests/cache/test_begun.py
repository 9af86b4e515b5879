"""Rows of blocks that are not full: they outlive their writer, go with their block, and leave no trace in the file."""

import os
from pathlib import Path

import lmdb
import numpy as np
import pytest

from cache.begun import begun_prefix
from cache.reader import ArrayFile
from cache.writer import ArrayWriter, partial_path
from magnet_core.errors import MagnetError
from tests.cache.versions import change

ROWS = np.random.default_rng(0).normal(size=(10, 3)).astype("float32")


def opened(path: Path) -> ArrayWriter:
    return ArrayWriter(path, {"of": "test"})


def declared(writer: ArrayWriter) -> ArrayWriter:
    for name in ("a", "b"):
        writer.declare(name, ROWS.shape, "float32", block_rows=8)
    return writer


def keys(path: Path) -> list[bytes]:
    with lmdb.open(os.fspath(path), subdir=False, lock=False, readonly=True) as env, env.begin() as txn:
        return [bytes(key) for key, _ in txn.cursor()]


def test_saved_rows_are_there_for_the_next_writer_and_gone_with_their_block(tmp_path: Path) -> None:
    path = tmp_path / "x.lmdb"
    with opened(path) as writer:
        declared(writer)
        writer.save_rows(0, 0, {"a": ROWS[:2], "b": -ROWS[:2]})
        writer.save_rows(0, 2, {"a": ROWS[2:5], "b": -ROWS[2:5]})
    with opened(path) as writer:
        declared(writer)
        np.testing.assert_array_equal(writer.saved_rows("a", 0), ROWS[:5])
        np.testing.assert_array_equal(writer.saved_rows("b", 0), -ROWS[:5])
        assert len(writer.saved_rows("a", 1)) == 0
        assert writer.missing_blocks("a") == [0, 1]
        writer.put_blocks(0, {"a": ROWS[:8], "b": -ROWS[:8]})
        assert len(writer.saved_rows("a", 0)) == len(writer.saved_rows("b", 0)) == 0
        writer.save_rows(1, 0, {"a": ROWS[8:9]})
        writer.put("a", ROWS)
        writer.put("b", -ROWS)
        assert writer.keep_choice("batch", 4) == 4
        assert writer.keep_choice("batch", 5) == 4
        writer.commit()
    assert not [key for key in keys(path) if key.startswith((b"begun/", b"choice/"))]
    with ArrayFile(path) as file:
        np.testing.assert_array_equal(file.read("a"), ROWS)
        np.testing.assert_array_equal(file.read("b"), -ROWS)


def test_damaged_saved_rows_and_those_after_them_are_not_taken_up(tmp_path: Path) -> None:
    path = tmp_path / "x.lmdb"
    with opened(path) as writer:
        declared(writer)
        for row in range(0, 6, 2):
            writer.save_rows(0, row, {"a": ROWS[row : row + 2]})
    change(partial_path(path), {begun_prefix("a", 0) + b"00000002": bytes(8) + ROWS[2:4].tobytes()})
    with opened(path) as writer:
        np.testing.assert_array_equal(declared(writer).saved_rows("a", 0), ROWS[:2])


def test_rows_of_another_type_or_width_are_refused(tmp_path: Path) -> None:
    with opened(tmp_path / "x.lmdb") as writer:
        declared(writer)
        for rows in (ROWS[:2].astype("float64"), ROWS[:2, :2]):
            with pytest.raises(MagnetError, match="a, block 0: expected"):
                writer.save_rows(0, 0, {"a": rows})


def test_many_savings_make_the_file_hardly_larger(tmp_path: Path) -> None:
    rows = np.random.default_rng(0).normal(size=(4096, 256)).astype("float32")  # 4 blocks of 1 MiB
    sizes = []
    for name, step in (("whole", 1024), ("saved", 16)):
        with ArrayWriter(tmp_path / name, {}) as writer:
            writer.declare("a", rows.shape, "float32", block_rows=1024)
            for block in range(4):
                of_block = rows[writer.block_rows("a", block)]
                for row in range(0, 1024, step):
                    writer.save_rows(block, row, {"a": of_block[row : row + step]}) if step < 1024 else None
                writer.put_block("a", block, of_block)
            writer.commit()
        sizes.append((tmp_path / name).stat().st_size)
    assert sizes[1] < sizes[0] + 2 * (1 << 20)
    np.testing.assert_array_equal(ArrayFile(tmp_path / "saved").read("a"), rows)

"""A cache file gives back what was put in, is absent until finished, and names its faults."""

import multiprocessing
import os
import pickle
from pathlib import Path
from typing import Any

import lmdb
import numpy as np
import pytest
import torch

from cache.lmdb_file import AbsentFileError, with_checksum
from cache.reader import ArrayFile, is_complete
from cache.schema import SCHEMA_KEY, block_key, checksum_key, default_block_rows, make_spec
from cache.writer import ArrayWriter, partial_path
from magnet_core.errors import MagnetError
from tests.cache.versions import change

HEADER = {"slide": "P1", "side_um": 28.0}
DTYPES = ["float16", "float32", "float64", "uint8", "int8", "int16", "int32", "int64", "bool", "S5"]


def sample(shape: tuple[int, ...], dtype: str, *, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 100, shape).astype(dtype)


def write(path: Path, arrays: dict[str, np.ndarray], *, block_rows: int | None = None) -> Path:
    with ArrayWriter(path, HEADER) as writer:
        for name, array in arrays.items():
            if block_rows is not None:
                writer.declare(name, array.shape, array.dtype, block_rows=block_rows)
            writer.put(name, array)
        writer.commit()
    return path


def read_all(path: Path) -> dict[str, np.ndarray]:
    with ArrayFile(path) as file:
        return {name: file.read(name) for name in file.names()}


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(23,), (23, 3), (5, 4, 7), (0, 3), (4, 0), (1,)])
def test_every_dtype_and_shape_comes_back(tmp_path: Path, dtype: str, shape: tuple[int, ...]) -> None:
    array = sample(shape, dtype)
    file = ArrayFile(write(tmp_path / "a.lmdb", {"a": array}, block_rows=4))
    rows = np.arange(len(array))[::-1]

    assert file.header == HEADER
    assert file.read("a").dtype == array.dtype
    np.testing.assert_array_equal(file.read("a"), array)
    np.testing.assert_array_equal(file.gather("a", rows), array[rows])
    for block in range(file.spec("a").num_blocks):
        view = file.block("a", block)
        np.testing.assert_array_equal(view, array[file.spec("a").block_slice(block)])
        assert view.ctypes.data % 64 == 0 or view.size == 0
        assert not view.flags.writeable


def test_slices_and_gathers_equal_numpy_across_many_blocks(tmp_path: Path) -> None:
    arrays = {"narrow": sample((1000, 3), "float64"), "wide": sample((300, 16, 33), "float16")}
    file = ArrayFile(write(tmp_path / "a.lmdb", arrays, block_rows=7))
    rng = np.random.default_rng(1)

    for name, array in arrays.items():
        for _ in range(20):
            lo, hi = np.sort(rng.integers(0, len(array) + 1, 2))
            rows = rng.integers(0, len(array), 50)  # any order, with duplicates
            np.testing.assert_array_equal(file.slice(name, lo, hi), array[lo:hi])
            np.testing.assert_array_equal(file.gather(name, rows), array[rows])
    assert file.gather("wide", np.zeros(0, int)).shape == (0, 16, 33)


def test_gathered_rows_become_tensors_without_a_warning(tmp_path: Path) -> None:
    array = sample((50, 4), "float16")
    file = ArrayFile(write(tmp_path / "a.lmdb", {"a": array}))

    assert torch.equal(torch.from_numpy(file.gather("a", np.array([3, 3, 0]))), torch.from_numpy(array[[3, 3, 0]]))


def test_text_comes_back_as_text(tmp_path: Path) -> None:
    names = np.array(["ACTB", "µ-gene é", "", "MT-CO1"])
    file = ArrayFile(write(tmp_path / "a.lmdb", {"genes/names": names}))

    np.testing.assert_array_equal(file.read("genes/names"), names)
    np.testing.assert_array_equal(file.gather("genes/names", np.array([3, 1])), names[[3, 1]])
    assert file.read("genes/names").dtype.kind == "U"


def test_text_wider_than_declared_is_an_error(tmp_path: Path) -> None:
    with ArrayWriter(tmp_path / "a.lmdb", HEADER) as writer:
        writer.declare("names", (2,), "U3")
        with pytest.raises(MagnetError, match="at most 3 UTF-8 bytes"):
            writer.put("names", np.array(["abc", "abé"]))


def test_a_view_outlives_its_file(tmp_path: Path) -> None:
    array = sample((40, 100), "float32")
    write(tmp_path / "a.lmdb", {"a": array}, block_rows=10)
    file = ArrayFile(tmp_path / "a.lmdb")
    view = file.block("a", 2)
    file.close()
    del file
    (tmp_path / "a.lmdb").unlink()

    np.testing.assert_array_equal(view, array[20:30])


def test_a_file_written_anew_is_read_anew_while_the_old_one_is_open(tmp_path: Path) -> None:
    old = ArrayFile(write(tmp_path / "a.lmdb", {"a": np.zeros(9)}))
    second_reader = ArrayFile(tmp_path / "a.lmdb")
    write(tmp_path / "a.lmdb", {"a": np.ones(9)})

    assert ArrayFile(tmp_path / "a.lmdb").read("a").sum() == 9
    assert old.read("a").sum() == second_reader.read("a").sum() == 0


def row_sum(file: ArrayFile, queue: "multiprocessing.Queue[float]") -> None:
    queue.put(float(file.gather("a", np.array([5, 1])).sum()))


@pytest.mark.parametrize("method", ["spawn", "fork"])
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_file_may_be_used_in_another_process(tmp_path: Path, method: str) -> None:
    array = sample((50, 4), "float32")
    file = ArrayFile(write(tmp_path / "a.lmdb", {"a": array}, block_rows=4))
    here = file.gather("a", np.array([5, 1])).sum()
    context: Any = multiprocessing.get_context(method)
    queue = context.Queue()
    process = context.Process(target=row_sum, args=(file, queue))
    process.start()

    assert queue.get(timeout=60) == here == array[[5, 1]].sum()
    process.join()
    assert process.exitcode == 0


def test_pickling_carries_the_path_alone(tmp_path: Path) -> None:
    file = ArrayFile(write(tmp_path / "a.lmdb", {"a": sample((50, 400), "float32")}))
    file.read("a")
    pickled = pickle.dumps(file)

    assert len(pickled) < 1000
    np.testing.assert_array_equal(pickle.loads(pickled).read("a"), file.read("a"))


def test_a_file_is_absent_until_it_is_committed(tmp_path: Path) -> None:
    path = tmp_path / "a.lmdb"
    with ArrayWriter(path, HEADER) as writer:
        writer.put("a", np.arange(10))
    assert not is_complete(path)
    with pytest.raises(AbsentFileError, match="extract run"):
        ArrayFile(path)
    with pytest.raises(AbsentFileError, match="no complete mark"):
        ArrayFile(partial_path(path))


@pytest.mark.parametrize("keep", [0, 10, 5000, 0.5, 0.99])
def test_a_truncated_file_is_absent(tmp_path: Path, keep: float) -> None:
    path = write(tmp_path / "a.lmdb", {"a": sample((500, 100), "float32")}, block_rows=50)
    os.truncate(path, int(keep if keep > 1 else keep * path.stat().st_size))
    with pytest.raises(AbsentFileError, match="delete it"):
        ArrayFile(path)


def test_a_file_of_another_kind_is_absent(tmp_path: Path) -> None:
    path = tmp_path / "a.lmdb"
    path.write_bytes(np.random.default_rng(0).bytes(20_000))
    with pytest.raises(AbsentFileError, match="LMDB"):
        ArrayFile(path)


@pytest.mark.parametrize("checksum", [with_checksum(SCHEMA_KEY, b"99")[checksum_key(SCHEMA_KEY)], None])
def test_a_newer_schema_version_asks_for_an_upgrade(tmp_path: Path, checksum: bytes | None) -> None:
    path = write(tmp_path / "a.lmdb", {"a": np.arange(3)})
    change(path, {SCHEMA_KEY: b"99", checksum_key(SCHEMA_KEY): checksum})
    with pytest.raises(MagnetError, match="upgrade magnet-hd") as raised:
        ArrayFile(path)
    assert not isinstance(raised.value, AbsentFileError)


def test_a_flipped_byte_is_found(tmp_path: Path) -> None:
    path = write(tmp_path / "a.lmdb", {"a": sample((100, 100), "float32"), "b": np.arange(9)}, block_rows=10)
    assert ArrayFile(path).verify() == []
    needle = ArrayFile(path).block("a", 7).tobytes()
    content = bytearray(path.read_bytes())
    content[content.index(needle) + 123] ^= 1
    path.with_suffix(".damaged").write_bytes(content)

    assert ArrayFile(path.with_suffix(".damaged")).verify() == ["a: block 7 does not match its checksum"]


def test_a_missing_block_is_found(tmp_path: Path) -> None:
    path = write(tmp_path / "a.lmdb", {"a": np.arange(30)}, block_rows=10)
    with lmdb.open(str(path), subdir=False, lock=False) as env, env.begin(write=True) as txn:
        txn.delete(block_key("a", 1))
    file = ArrayFile(path)

    assert file.verify() == ["a: block 1 of 3 is missing"]
    with pytest.raises(MagnetError, match="cache verify"):
        file.read("a")


def test_wrong_names_and_rows_are_one_line(tmp_path: Path) -> None:
    file = ArrayFile(write(tmp_path / "a.lmdb", {"coords_um": np.zeros((5, 2))}))
    with pytest.raises(MagnetError, match="did you mean coords_um"):
        file.read("coord_um")
    for rows in ([0, 5], [-1, 2]):
        with pytest.raises(MagnetError, match="rows within 0:5"):
            file.gather("coords_um", np.array(rows))
    with pytest.raises(MagnetError, match="rows within 0:5"):
        file.slice("coords_um", 2, 6)


def test_the_default_block_follows_from_the_bytes_of_a_row_alone() -> None:
    assert default_block_rows(4096) == 1024
    for row_bytes in (0, 1, 16, 1000, 4096, 65536, 3 * 112 * 112, 20 << 20):
        rows = default_block_rows(row_bytes)
        assert rows == 1 or rows * row_bytes <= 8 << 20
        assert rows >= 1024 or rows * row_bytes > 4 << 20


@pytest.mark.parametrize(
    ("name", "shape", "dtype"),
    [
        ("a b", (3,), "f4"),
        ("", (3,), "f4"),
        ("a", (), "f4"),
        ("a", (3,), "O"),
        ("a", (3, *[1] * 32), "f4"),
        ("a", (0, 1 << 61), "f4"),
    ],
)
def test_what_cannot_be_stored_is_refused(name: str, shape: tuple[int, ...], dtype: str) -> None:
    with pytest.raises(MagnetError):
        make_spec(name, shape, dtype=dtype)

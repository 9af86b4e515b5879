"""One writer at a time; a killed one resumes; what is committed is checked."""

import signal
import subprocess
import sys
import time
from pathlib import Path

import lmdb
import numpy as np
import pytest

from cache.reader import ArrayFile, is_complete
from cache.schema import block_key
from cache.writer import ArrayWriter, partial_path
from magnet_core.errors import MagnetError

REPOSITORY = Path(__file__).resolve().parents[2]
ROWS, WIDTH, BLOCK_ROWS = 400, 64, 4

WRITE_SLOWLY = f"""
import sys, time
import numpy as np
from cache.writer import ArrayWriter
with ArrayWriter(sys.argv[1], {{"seed": 7}}) as writer:
    for name in ("a", "b"):
        writer.declare(name, ({ROWS}, {WIDTH}), "float32", block_rows={BLOCK_ROWS})
        array = np.random.default_rng([7, ord(name)]).normal(size=({ROWS}, {WIDTH})).astype("float32")
        for block in writer.missing_blocks(name):
            writer.put_block(name, block, array[writer.block_rows(name, block)])
            print(name, block, flush=True)
    writer.put("names", np.array(["x", "yy"]))
    writer.commit()
"""


def start_writer(path: Path) -> "subprocess.Popen[str]":
    command = [sys.executable, "-c", WRITE_SLOWLY, str(path)]
    return subprocess.Popen(command, cwd=REPOSITORY, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def finish(process: "subprocess.Popen[str]") -> str:
    out, error = process.communicate(timeout=120)
    assert process.returncode == 0, error
    return out


def test_a_killed_writer_resumes_and_ends_identical(tmp_path: Path) -> None:
    finish(start_writer(tmp_path / "whole.lmdb"))
    path, rng, written = tmp_path / "killed.lmdb", np.random.default_rng(3), 0
    for _ in range(3):
        process = start_writer(path)
        for _ in range(int(rng.integers(5, 50))):
            assert process.stdout is not None
            written += bool(process.stdout.readline())
        time.sleep(rng.uniform(0, 0.003))
        process.send_signal(signal.SIGKILL)
        process.communicate()
        assert not is_complete(path)
        assert partial_path(path).exists()
    rest = finish(start_writer(path)).count("\n")

    assert 0 < rest <= 2 * ROWS // BLOCK_ROWS - written  # nothing that was on disk is written again
    whole, killed = ArrayFile(tmp_path / "whole.lmdb"), ArrayFile(path)
    assert killed.verify() == []
    assert killed.header == whole.header
    assert killed.names() == whole.names() == ["a", "b", "names"]
    for name in whole.names():
        assert killed.spec(name) == whole.spec(name)
        np.testing.assert_array_equal(killed.read(name), whole.read(name))
    assert [entry.name for entry in tmp_path.iterdir() if "killed" in entry.name] == ["killed.lmdb"]


def test_a_second_writer_is_told_of_the_first(tmp_path: Path) -> None:
    path = tmp_path / "a.lmdb"
    with ArrayWriter(path, {}) as first:
        with pytest.raises(MagnetError, match="found another one: .*process"), ArrayWriter(path, {}):
            pytest.fail("two writers at once")
        first.put("a", np.arange(5))
        first.commit()
    with ArrayWriter(path, {}):
        assert is_complete(path)  # the finished file stays until the new one replaces it


def test_a_dead_writers_lock_does_not_block(tmp_path: Path) -> None:
    path = tmp_path / "a.lmdb"
    (tmp_path / "a.lmdb.lock").write_text("elsewhere, process 1")
    with ArrayWriter(path, {}) as writer:
        writer.put("a", np.arange(5))
        writer.commit()
    assert ArrayFile(path).read("a").tolist() == [0, 1, 2, 3, 4]


def test_another_header_starts_afresh_and_the_same_resumes(tmp_path: Path) -> None:
    path = tmp_path / "a.lmdb"
    with ArrayWriter(path, {"k": 8, "side_um": 28}) as writer:
        writer.declare("a", (4,), "int32", block_rows=1)
        writer.put_block("a", 2, np.array([5], "int32"))
    with ArrayWriter(path, {"side_um": 28, "k": 8}) as writer:
        writer.declare("a", (4,), "int32", block_rows=1)
        assert writer.missing_blocks("a") == [0, 1, 3]
    with ArrayWriter(path, {"k": 9, "side_um": 28}) as writer:
        writer.declare("a", (4,), "int32", block_rows=1)
        assert writer.missing_blocks("a") == [0, 1, 2, 3]


def test_a_damaged_partial_file_starts_afresh(tmp_path: Path) -> None:
    partial_path(tmp_path / "a.lmdb").write_bytes(b"no LMDB file" * 1000)
    with ArrayWriter(tmp_path / "a.lmdb", {}) as writer:
        writer.put("a", np.arange(3))
        writer.commit()
    assert is_complete(tmp_path / "a.lmdb")


def test_a_differing_declaration_is_an_error(tmp_path: Path) -> None:
    with ArrayWriter(tmp_path / "a.lmdb", {}) as writer:
        assert writer.declare("a", (4, 2), "float32") == writer.declare("a", (4, 2), np.float32)
        with pytest.raises(MagnetError, match=r"expected \(4, 2\) <f4 .* found \(4, 3\)"):
            writer.declare("a", (4, 3), "float32")


def test_commit_refuses_missing_blocks(tmp_path: Path) -> None:
    with ArrayWriter(tmp_path / "a.lmdb", {}) as writer:
        writer.declare("a", (4,), "int32", block_rows=2)
        writer.put_block("a", 0, np.zeros(2, "int32"))
        with pytest.raises(MagnetError, match="1 that are not; a: block 1 of 2 is missing"):
            writer.commit()
    assert not is_complete(tmp_path / "a.lmdb")


def test_commit_drops_a_damaged_block_so_that_it_is_written_again(tmp_path: Path) -> None:
    path = tmp_path / "a.lmdb"
    with ArrayWriter(path, {}) as writer:
        writer.declare("a", (4,), "int32", block_rows=2)
        writer.put("a", np.arange(4, dtype="int32"))
    with lmdb.open(str(partial_path(path)), subdir=False, lock=False) as env, env.begin(write=True) as txn:
        txn.put(block_key("a", 1), b"\1" * 8192)
    with ArrayWriter(path, {}) as writer:
        with pytest.raises(MagnetError, match="block 1 does not match its checksum"):
            writer.commit()
        assert writer.missing_blocks("a") == [1]
        writer.put("a", np.arange(4, dtype="int32"))
        writer.commit()
    assert ArrayFile(path).read("a").tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize("block", [np.zeros(3, "int32"), np.zeros(2, "int64"), np.zeros((2, 1), "int32")])
def test_a_block_of_another_shape_or_dtype_is_refused(tmp_path: Path, block: np.ndarray) -> None:
    with ArrayWriter(tmp_path / "a.lmdb", {}) as writer:
        writer.declare("a", (4,), "int32", block_rows=2)
        with pytest.raises(MagnetError, match="a, block 0"):
            writer.put_block("a", 0, block)
        assert writer.missing_blocks("a") == [0, 1]


def test_the_map_grows_with_what_is_written(tmp_path: Path) -> None:
    array = np.random.default_rng(0).normal(size=(6 << 20,))  # 48 MiB, three times the map of an empty file
    with ArrayWriter(tmp_path / "a.lmdb", {}) as writer:
        writer.put("a", array)
        writer.put("again", array[::-1])
        for block in range(3):  # replaced blocks leave their old pages behind for a while
            writer.put_block("a", block, array[writer.block_rows("a", block)])
        writer.commit()
    np.testing.assert_array_equal(ArrayFile(tmp_path / "a.lmdb").read("a"), array)


def test_a_full_disk_is_one_line_and_the_finished_blocks_stay(tmp_path: Path) -> None:
    path = tmp_path / "a.lmdb"
    program = """
import resource, signal, sys
import numpy as np
from cache.writer import ArrayWriter
from magnet_core.errors import MagnetError
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20))
try:
    with ArrayWriter(sys.argv[1], {}) as writer:
        writer.declare("a", (100, 10_000), "float32", block_rows=10)
        writer.put("a", np.ones((100, 10_000), "float32"))
except MagnetError as error:
    print(error)
"""
    command = [sys.executable, "-c", program, str(path)]
    ended = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=120, check=True)

    assert ended.stdout.count("\n") == 1
    assert "check the disk, the room on it and its network, and give the same command again" in ended.stdout
    with ArrayWriter(path, {}) as writer:
        assert writer.missing_blocks("a") == list(range(2, 10))


def test_a_closed_writer_says_so(tmp_path: Path) -> None:
    with ArrayWriter(tmp_path / "a.lmdb", {}) as writer:
        writer.put("a", np.arange(3))
        writer.commit()
        with pytest.raises(MagnetError, match="a closed one"):
            writer.put("b", np.arange(3))

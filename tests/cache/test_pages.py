"""No bit of the pages that hold an LMDB file together can be flipped so that the process ends or a value changes."""

import multiprocessing
import os
import random
import struct
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import lmdb
import numpy as np
import pytest

from cache.lmdb_file import AbsentFileError, DamagedFileError
from cache.lmdb_pages import check_pages
from cache.reader import ArrayFile
from cache.writer import ArrayWriter, partial_path
from tests.cache.test_damage import HEADER, read_whole, write

PAGE = 4096
META_BYTES = 16 + 136  # head of the page, and what LMDB keeps there
SEVERAL = {f"{'long' * 40}/{number}": np.arange(number + 2, dtype=np.int32) for number in range(8)}
COMMITTED = Path(__file__).resolve().parents[1] / "data"

Place = tuple[int, int]  # byte of a file, bit of the byte


def write_several(path: Path) -> Path:
    """A file whose tree has a page that branches."""
    with ArrayWriter(path, HEADER) as writer:
        for name, array in SEVERAL.items():
            writer.put(name, array)
        writer.commit()
    return path


def page_places(path: Path, flags: Sequence[int]) -> list[Place]:
    """Every bit that means something on the pages with one of these flags, outdated copies of pages included."""
    content = path.read_bytes()
    places = []
    for page in range(len(content) // PAGE):
        stated, lower, upper = struct.unpack_from("<HHH", content, page * PAGE + 10)
        number = int.from_bytes(content[page * PAGE :][:8], "little")
        if stated not in flags or number != page:  # rows of an array
            continue
        used = range(META_BYTES) if stated == 8 else [*range(lower), *range(upper, PAGE)]
        places += [(page * PAGE + byte, bit) for byte in used for bit in range(8)]
    return places


@contextmanager
def flipped(path: Path, place: Place) -> Iterator[None]:
    """Flip a bit in place, and flip it back."""
    byte, bit = place
    with path.open("r+b", buffering=0) as file:
        for way in ("there", "and back"):
            file.seek(byte)
            value = file.read(1)[0] ^ 1 << bit
            file.seek(byte)
            file.write(bytes([value]))
            if way == "there":
                yield


def read_with_flips(path: Path, places: Sequence[Place]) -> None:
    """Read the file with each of the bits flipped: it is as it was, or damage is told of in one line."""
    before = read_whole(path)
    assert before is not None
    num_told = 0
    for place in places:
        with flipped(path, place):
            outcome = read_whole(path)
        num_told += outcome is None
        if outcome is not None:
            assert outcome[0] == before[0], place
            assert outcome[1].keys() == before[1].keys(), place
            for name, array in before[1].items():
                np.testing.assert_array_equal(outcome[1][name], array, err_msg=str(place))
    assert 0 < num_told < len(places)


def read_any_with_flips(path: Path, places: Sequence[Place]) -> None:
    """Read a file of version 1 with each of the bits flipped; only a crash or a foreign exception would be seen."""
    for place in places:
        with flipped(path, place):
            read_whole(path)


def write_on_with_flips(path: Path, places: Sequence[Place]) -> None:
    """Go on with the unfinished file with each of the bits flipped: what comes out is whole."""
    content = partial_path(path).read_bytes()
    for byte, bit in places:
        damaged = bytearray(content)
        damaged[byte] ^= 1 << bit
        partial_path(path).unlink(missing_ok=True)
        partial_path(path).write_bytes(damaged)
        with ArrayWriter(path, HEADER) as writer:
            for name, array in SEVERAL.items():
                writer.put(name, array)
            writer.commit()
        with ArrayFile(path) as file:
            assert file.verify() == [], (byte, bit)
            for name, array in SEVERAL.items():
                np.testing.assert_array_equal(file.read(name), array, err_msg=str((byte, bit)))


def in_a_child(work: Callable[[Path, Sequence[Place]], None], path: Path, places: Sequence[Place]) -> None:
    """Work in another process, as a crash would end this one; an error there ends it with 1."""
    child = multiprocessing.get_context("spawn").Process(target=work, args=(path, places))
    child.start()
    child.join()
    assert child.exitcode == 0


def sample(places: Sequence[Place], count: int) -> list[Place]:
    return random.Random(0).sample(list(places), min(count, len(places)))


FEW = 250


def test_no_bit_of_a_small_file_ends_the_process_or_changes_a_value(tmp_path: Path) -> None:
    path = write(tmp_path / "a.lmdb")
    in_a_child(read_with_flips, path, sample(page_places(path, (1, 2, 8)), FEW))


def test_no_bit_of_a_page_that_branches_does_either(tmp_path: Path) -> None:
    path = write_several(tmp_path / "a.lmdb")
    branches = page_places(path, (1,))
    assert branches
    in_a_child(read_with_flips, path, [*sample(branches, FEW), *sample(page_places(path, (2, 4)), FEW // 2)])


def test_no_bit_of_a_file_of_version_1_ends_the_process(tmp_path: Path) -> None:
    path = tmp_path / "a.lmdb"
    path.write_bytes((COMMITTED / "store_v1/P1/geometry.lmdb").read_bytes())
    in_a_child(read_any_with_flips, path, sample(page_places(path, (1, 2, 4, 8)), FEW))


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_each_bit_of_all_pages_was_tried(tmp_path: Path) -> None:
    for path in (write(tmp_path / "a.lmdb"), write_several(tmp_path / "b.lmdb")):
        in_a_child(read_with_flips, path, page_places(path, (1, 2, 4, 8)))


def test_a_writer_that_goes_on_trusts_no_page_either(tmp_path: Path) -> None:
    path = write_several(tmp_path / "a.lmdb")
    path.rename(partial_path(path))
    in_a_child(write_on_with_flips, path, sample(page_places(partial_path(path), (1, 2, 4, 8)), 40))


@pytest.mark.parametrize(
    ("byte", "found"),
    [
        (0, "number 1"),  # its own number
        (10, ".*flags"),  # a leaf or not
        (12, "free room"),
        (16, "a node of"),
    ],
)
def test_the_page_is_named_with_the_remedy(tmp_path: Path, byte: int, found: str) -> None:
    path = write(tmp_path / "a.lmdb")
    with lmdb.open(os.fspath(path), subdir=False, lock=False, readonly=True) as env:
        newest = env.info()["last_txnid"] % 2
    (root,) = struct.unpack_from("<Q", path.read_bytes(), newest * PAGE + 16 + 112)
    content = bytearray(path.read_bytes())
    content[root * PAGE + byte] ^= 1 if byte else root ^ 1
    path.write_bytes(content)
    with pytest.raises(DamagedFileError, match=rf"expected its page {root} as it was written, found {found}.*; delete"):
        ArrayFile(path)


def test_what_is_no_lmdb_file_or_cut_short_counts_as_absent(tmp_path: Path) -> None:
    path = write(tmp_path / "a.lmdb")
    content = path.read_bytes()
    for damaged, found in [
        (b"no LMDB file" * 1000, "no meta page 0"),
        (content[:100], "found 100 bytes"),
        (content[: PAGE + 100], f"found {PAGE + 100} bytes"),
        (content[:20] + b"\x03" + content[21:], "data version 3"),
        (content[: -3 * PAGE], "truncated"),
    ]:
        path.unlink()
        path.write_bytes(damaged)
        with pytest.raises(AbsentFileError, match=found):
            ArrayFile(path)


def test_an_unfinished_file_whose_last_pages_were_never_written_is_gone_on_with(tmp_path: Path) -> None:
    path = tmp_path / "a.lmdb"
    with ArrayWriter(path, HEADER) as writer:
        writer.declare("a", (4,), np.int32, block_rows=2)
        writer.put_block("a", 0, np.arange(2, dtype=np.int32))
    partial = partial_path(path)
    content = bytearray(partial.read_bytes())
    for page in (0, 1):  # LMDB counts pages that a transaction took and gave back
        at = page * PAGE + 16 + 120
        (last,) = struct.unpack_from("<Q", content, at)
        struct.pack_into("<Q", content, at, max(last, len(content) // PAGE - 1) + 2)
    partial.write_bytes(content)
    with ArrayWriter(path, HEADER) as writer:
        assert writer.missing_blocks(writer.declare("a", (4,), np.int32, block_rows=2).name) == [1]
        writer.put_block("a", 1, np.arange(2, 4, dtype=np.int32))
        writer.commit()
    np.testing.assert_array_equal(ArrayFile(path).read("a"), np.arange(4))


def test_an_unfinished_file_that_cannot_be_read_is_left_as_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_several(tmp_path / "a.lmdb")
    path.rename(partial_path(path))

    def refuse(*_: Any) -> bytes:
        raise OSError(5, "Input/output error")

    with monkeypatch.context() as patched:
        patched.setattr("cache.lmdb_pages.os.pread", refuse)
        with pytest.raises(Exception, match="Input/output error"), ArrayWriter(path, HEADER):
            pass
    with ArrayWriter(path, HEADER) as writer:
        assert [name for name in SEVERAL if writer.missing_blocks(name)] == []


@pytest.mark.parametrize("seed", range(6))
def test_whatever_lmdb_writes_is_accepted(tmp_path: Path, seed: int) -> None:
    keys: list[bytes] = []
    path, rng = tmp_path / "a.lmdb", random.Random(seed)
    with lmdb.open(os.fspath(path), subdir=False, lock=False, sync=False, map_size=1 << 28) as env:
        for step in range(60):
            with env.begin(write=True) as txn:
                for _ in range(rng.randrange(1, 40)):
                    if keys and rng.random() < 0.4:
                        txn.delete(keys.pop(rng.randrange(len(keys))))
                    keys.append(rng.randbytes(rng.randrange(1, (12, 60, 500)[seed % 3])))
                    txn.put(keys[-1], bytes(rng.choice([0, 3, 90, 4000, 30_000] if seed > 2 else [8, 90])))
            if step % 6 == 0:
                os.truncate(path, max(path.stat().st_size, PAGE * (env.info()["last_pgno"] + 1)))
                check_pages(path)
                check_pages(path, writes=True)
        assert env.stat()["depth"] > 1


def test_a_check_costs_no_more_where_values_are_large(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    costs, pread = list[int](), os.pread
    for rows in (4000, 4_000_000):
        with ArrayWriter(tmp_path / f"{rows}.lmdb", HEADER) as writer:
            writer.declare("a", (rows,), np.int32, block_rows=rows // 4)
            writer.put("a", np.zeros(rows, np.int32))
            writer.commit()
        costs.append(0)

        def counted(descriptor: int, count: int, at: int) -> bytes:
            costs[-1] += count
            return pread(descriptor, count, at)

        with monkeypatch.context() as patched:
            patched.setattr("cache.lmdb_pages.os.pread", counted)
            check_pages(tmp_path / f"{rows}.lmdb")
    assert 0 < costs[0] == costs[1] <= 3 * PAGE

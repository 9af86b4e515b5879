"""HDF5 files that lie about themselves are one line, before anything is allocated for them or read of other files."""

import zlib
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest

from magnet_core.checked_h5 import SMALL_BYTES, UNSEEN_BYTES, check_h5
from magnet_core.errors import MagnetError


def check(path: Path, *names: str) -> None:
    check_h5(path, names, expected="an h5 file", remedy="copy it again")


def claim_terabytes(file: h5py.File) -> None:
    file.create_dataset("data", shape=(10**12,), dtype="i4", chunks=(1000,))


def claim_rows_of_text(file: h5py.File) -> None:
    file.create_dataset("data", shape=(10**9,), dtype=h5py.string_dtype(), chunks=(1000,))


def compress_zeros(file: h5py.File) -> None:
    file.create_dataset("data", shape=(SMALL_BYTES + 1,), dtype="u1", chunks=(1 << 22,), compression="gzip")[:] = 0


def chunk_of_gigabytes(file: h5py.File) -> None:
    file.create_dataset("data", shape=(10,), maxshape=(None,), dtype="i8", chunks=(1 << 28,))


def bomb(nbytes: int) -> bytes:
    """A stream of deflate that unpacks to so many zeros."""
    packer, part = zlib.compressobj(1), bytes(1 << 20)
    return b"".join([*(packer.compress(part) for _ in range(nbytes >> 20)), packer.flush()])


def chunk_that_unpacks_to_more(file: h5py.File) -> None:
    """A chunk of 4,000 bytes whose packed bytes become 300 MiB, for all of which HDF5 would take memory."""
    values = file.create_dataset("data", shape=(2000,), dtype="i4", chunks=(1000,), compression="gzip")
    values[:] = 1
    values.id.write_direct_chunk((1000,), bomb(300 << 20))


def packed_twice(file: h5py.File) -> None:
    properties = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    properties.set_chunk((1000,))
    properties.set_deflate(1)
    properties.set_deflate(1)
    space = h5py.h5s.create_simple((1000,))
    h5py.h5d.create(file.id, b"data", h5py.h5t.NATIVE_INT32, space, properties)
    file["data"][:] = 1


def chunk_larger_than_all(file: h5py.File) -> None:
    file["filling"] = np.random.default_rng(0).integers(0, 255, 1 << 20, dtype=np.uint8)  # makes the file large
    file.create_dataset("data", shape=(10,), maxshape=(None,), dtype="i8", chunks=(1 << 24,))


def other_files_bytes(file: h5py.File) -> None:
    secret = Path(file.filename).with_name("secret.txt")
    secret.write_bytes(b"0123456789")
    file.create_dataset("data", shape=(10,), dtype="S1", external=[(str(secret), 0, 10)])


def link_to_another_file(file: h5py.File) -> None:
    with h5py.File(Path(file.filename).with_name("other.h5"), "w") as other:
        other["data"] = [1]
    file["data"] = h5py.ExternalLink("other.h5", "data")


def virtual(file: h5py.File) -> None:
    layout = h5py.VirtualLayout(shape=(4,), dtype="i4")
    layout[:] = h5py.VirtualSource("other.h5", "data", shape=(4,))
    file.create_virtual_dataset("data", layout)


def long_text(file: h5py.File) -> None:
    file["data"] = ["TP53", "A" * 200_000]


def long_fixed_text(file: h5py.File) -> None:
    file["data"] = np.array([b"A" * 200_000])


def compound(file: h5py.File) -> None:
    file["data"] = np.zeros(3, dtype=[("a", "i4"), ("b", "O")][:1])


def foreign_filter(file: h5py.File) -> None:
    file.create_dataset("data", data=np.arange(100), scaleoffset=0)


def group(file: h5py.File) -> None:
    file["data/inner"] = [1]


@pytest.mark.parametrize(
    ("write", "said"),
    [
        (claim_terabytes, r"'data' of shape \(1000000000000,\) with no more than 0 bytes stored of it"),
        (claim_rows_of_text, "with no more than 0 bytes stored"),
        (compress_zeros, r"'data' of shape \(67108865,\) with no more than \d+ bytes stored"),
        (chunk_of_gigabytes, r"'data' in chunks of shape \(268435456,\)"),
        (chunk_larger_than_all, r"'data' in chunks of shape \(16777216,\)"),
        (chunk_that_unpacks_to_more, "'data' with a chunk that unpacks to more than the 4004 bytes it has"),
        (packed_twice, "'data' compressed 2 times over"),
        (other_files_bytes, "'data' without values of its own"),
        (link_to_another_file, "'data', which lies in another file"),
        (virtual, "'data' without values of its own"),
        (long_text, "'data' with a text of 200000 bytes, more than 1024"),
        (long_fixed_text, "'data' with texts of 200000 bytes, more than 1024"),
        (compound, "'data' of type"),
        (foreign_filter, "'data' compressed by filter 6"),
        (group, "a group 'data'"),
    ],
)
def test_what_may_not_be_read_is_one_line(tmp_path: Path, write: Callable[[h5py.File], None], said: str) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as file:
        write(file)
    with pytest.raises(MagnetError, match=said):
        check(tmp_path / "a.h5", "data")


def test_honest_parts_pass_in_every_storage(tmp_path: Path) -> None:
    path, rng = tmp_path / "a.h5", np.random.default_rng(0)
    with h5py.File(path, "w") as file:
        group = file.create_group("obs")
        group.attrs["_index"] = "names"
        group["names"] = ["a", "µ" * 200]
        group["unused"] = ["A" * 200_000]  # is not looked at
        group.create_dataset("counts", data=rng.poisson(1, 10**5), compression="gzip", shuffle=True, fletcher32=True)
        group.create_dataset("lzf", data=rng.poisson(1, 10**5), compression="lzf")
        group.create_dataset("empty", shape=(0,), maxshape=(None,), dtype="i4")
        group.create_dataset("mask", data=[True, False])
        file["X/data"], file["X/indices"] = rng.random(9), np.arange(9)
    check(path, "obs/{_index}/", "obs/counts", "obs/lzf", "obs/empty", "obs/mask", "X/", "var/gene_ids/?")
    with pytest.raises(MagnetError, match="'var'"):
        check(path, "var/gene_ids")


def test_a_chunk_beyond_the_end_and_a_file_that_is_none(tmp_path: Path) -> None:
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        file.create_dataset("data", data=np.random.default_rng(0).integers(0, 9, 10**5), chunks=(10**4,))
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(MagnetError, match="truncated file"):
        check(path, "data")
    path.write_bytes(b"not HDF5")
    with pytest.raises(MagnetError, match="expected an h5 file, found .*; copy it again"):
        check(path, "data")
    path.write_bytes(b"")
    with pytest.raises(MagnetError, match="0 bytes"):
        check(path, "data")


def test_damaged_bytes_end_in_a_line_and_never_in_more(tmp_path: Path) -> None:
    """Each of 300 bytes of a file's inner tables in turn: the library's own answer, a crash or a limit is one line."""
    path, refused = tmp_path / "a.h5", 0
    with h5py.File(path, "w") as file:
        file["names"] = ["a", "b"]
        file.create_dataset("data", data=np.arange(2000), chunks=(100,), compression="gzip")
    content = path.read_bytes()
    for place in np.random.default_rng(0).choice(2048, 300, replace=False).tolist():
        damaged = bytearray(content)
        damaged[place] ^= 0xFF
        path.write_bytes(damaged)
        try:
            check(path, "names", "data")
        except MagnetError:
            refused += 1
    assert refused > 30


@pytest.mark.parametrize("checksum", [False, True])
def test_large_chunks_that_are_what_they_say_are_read(tmp_path: Path, checksum: bool) -> None:
    values = np.random.default_rng(0).integers(0, 255, 1 << 19, dtype=np.uint8)  # packed they may be a bomb: 512 KiB
    with h5py.File(tmp_path / "large.h5", "w") as file:
        file.create_dataset(
            "data", data=values, chunks=(1 << 19,), compression="gzip", fletcher32=checksum, shuffle=True
        )
    check(tmp_path / "large.h5", "data")
    with h5py.File(tmp_path / "large.h5") as file:
        assert file["data"].id.get_chunk_info(0).size > UNSEEN_BYTES // 1032  # it was looked at

"""What damage does to a file: it reads as it was written, or one line says which part is not; never anything else."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lmdb
import numpy as np
import pytest
from typer.testing import CliRunner

from cache.cli import app
from cache.lmdb_file import AbsentFileError, specs_checksum, with_checksum
from cache.reader import ArrayFile
from cache.schema import HEADER_KEY, SCHEMA_KEY, checksum_key, make_spec, spec_key
from cache.store import Store
from cache.writer import ArrayWriter, partial_path
from magnet_core.errors import MagnetError
from tests.cache.versions import as_version_1, change

FLIPS = 600
HEADER = {"slide_id": "P1", "mpp": 0.2738, "levels": {"bin8": {"patch_um": 28.0}}, "text": "µ"}
ARRAYS = {
    "bin8/coords_um": np.arange(40.0).reshape(20, 2),
    "counts": np.arange(300, dtype=np.int32),
    "empty": np.zeros((0, 3), np.float16),
    "names": np.array(["ACTB", "MT-CO1", "µ"]),
}
SPEC: dict[str, Any] = {"block_rows": 262144, "dtype": "<i4", "shape": [300], "text": False}


def write(path: Path, *, version: int = 2, slide_id: str = "P1") -> Path:
    with ArrayWriter(path, HEADER | {"slide_id": slide_id}) as writer:
        writer.declare("bin8/coords_um", (20, 2), np.float64, block_rows=8)
        for name, array in ARRAYS.items():
            writer.put(name, array)
        writer.commit()
    return as_version_1(path) if version == 1 else path


def read_whole(path: Path) -> tuple[dict[str, Any], dict[str, np.ndarray]] | None:
    """Header and arrays of a file, None where damage is told of in one line."""
    try:
        file = ArrayFile(path)
        if file.verify():
            return None
        arrays = {name: file.read(name) for name in file.names()}
        for name, array in arrays.items():
            np.testing.assert_array_equal(file.gather(name, np.arange(len(array))), array)
        return {**file.header, "mpp": file.header["mpp"], "um": file.header["levels"]["bin8"]["patch_um"]}, arrays
    except MagnetError:
        return None


def keys_and_values(path: Path) -> list[bytes]:
    """Each key of a file as it lies there, with its value behind it; of a block the key alone."""
    with lmdb.open(os.fspath(path), subdir=False, lock=False, readonly=True) as env, env.begin() as txn:
        return [key if key.startswith(b"block/") else key + value for key, value in txn.cursor()]


def outcomes_of_flips(path: Path) -> list[tuple[dict[str, Any], dict[str, np.ndarray]] | None]:
    """What a reader sees after each of many single flipped bits in keys, header, specs, checksums and version."""
    content, rng = path.read_bytes(), np.random.default_rng(0)
    regions = keys_and_values(path)
    outcomes = []
    for number in range(FLIPS):
        region = regions[rng.integers(len(regions))]
        bit = int(rng.integers(8 * len(region)))
        flipped = bytearray(region)
        flipped[bit // 8] ^= 1 << bit % 8
        assert region in content
        damaged = path.with_name(f"{number}.lmdb")
        damaged.write_bytes(content.replace(region, flipped))  # in outdated copies of the page as well
        outcomes.append(read_whole(damaged))
        damaged.unlink()
    return outcomes


def test_a_flipped_bit_in_what_describes_the_arrays_never_changes_a_value(tmp_path: Path) -> None:
    path = write(tmp_path / "a.lmdb")
    before = read_whole(path)
    assert before is not None
    assert before[1].keys() == ARRAYS.keys()
    for outcome in outcomes_of_flips(path):
        if outcome is not None:
            header, arrays = outcome
            assert header == before[0]
            assert arrays.keys() == ARRAYS.keys()
            for name, array in ARRAYS.items():
                assert arrays[name].dtype == before[1][name].dtype
                np.testing.assert_array_equal(arrays[name], array)


def test_a_flipped_bit_in_a_file_of_version_1_is_no_traceback(tmp_path: Path) -> None:
    path = write(tmp_path / "a.lmdb", version=1)
    assert read_whole(path) is not None
    assert any(outcome is None for outcome in outcomes_of_flips(path))


@pytest.mark.parametrize(
    ("region", "flipped", "part"),
    [
        (b'"dtype":"<f8"', b'"dtype":">f8"', r"spec of 'bin8/coords_um'"),
        (b'"mpp":0.2738', b'"mpp":0.3738', "header"),
        (b"schema2", b"schema3", "schema version"),
        (b"schema2", b"schemaz", "schema version"),
    ],
)
def test_the_damaged_part_is_named_with_the_remedy(tmp_path: Path, region: bytes, flipped: bytes, part: str) -> None:
    path = write(tmp_path / "a.lmdb")
    path.with_name("b.lmdb").write_bytes(path.read_bytes().replace(region, flipped))
    line = rf"b\.lmdb: expected its {part} as it was written, found one that does not match its checksum; delete it and"
    with pytest.raises(MagnetError, match=line) as raised:
        ArrayFile(path.with_name("b.lmdb"))
    assert not isinstance(raised.value, AbsentFileError)


@pytest.mark.parametrize("name", ["counts", "more"])
def test_a_spec_that_is_gone_or_was_added_is_noticed(tmp_path: Path, name: str) -> None:
    path, key = write(tmp_path / "a.lmdb"), spec_key(name)
    added = with_checksum(key, make_spec(name, (0,), dtype="<i4").to_json())
    change(path, dict.fromkeys(added) if name in ARRAYS else {**added})
    with pytest.raises(MagnetError, match="its list of arrays as it was written, found one that does not match"):
        ArrayFile(path)


@pytest.mark.parametrize("key", [SCHEMA_KEY, HEADER_KEY, spec_key("counts")])
def test_a_checksum_that_is_gone_is_noticed(tmp_path: Path, key: bytes) -> None:
    path = change(write(tmp_path / "a.lmdb"), {checksum_key(key): None})
    with pytest.raises(MagnetError, match="as it was written, found no checksum of it"):
        ArrayFile(path)


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize(
    "spec",
    [
        b"",
        b"null",
        b"\xff\xfe{}",
        b"[" * 100_000,
        b"{}",
        *(
            json.dumps(SPEC | {field: value}, separators=(",", ":")).encode()
            for field, value in [
                ("dtype", ">i4"),
                ("dtype", "|O"),
                ("dtype", "|V4"),
                ("dtype", "i4,i4"),
                ("dtype", "(2"),
                ("dtype", "|S99999999999"),
                ("dtype", 4),
                ("shape", 300),
                ("shape", []),
                ("shape", [-300]),
                ("shape", [300.0]),
                ("shape", ["300"]),
                ("shape", [float("inf")]),
                ("shape", [10**12]),
                ("shape", [10**30]),
                ("shape", [0, 10**30]),
                ("shape", [10**12, 0]),
                ("shape", [300, *[1] * 70]),
                ("block_rows", 0),
                ("block_rows", -1),
                ("block_rows", True),
                ("block_rows", None),
                ("block_rows", 262144.5),
                ("text", True),
                ("text", 0),
            ]
        ),
        json.dumps(SPEC | {"shape": [10**15], "block_rows": 1}, separators=(",", ":")).encode(),
        json.dumps(SPEC).encode(),
    ],
    ids=lambda spec: str(spec[:60]) if isinstance(spec, bytes) else str(spec),
)
def test_a_spec_that_makes_no_sense_is_one_line_even_where_its_checksum_fits(
    tmp_path: Path, version: int, spec: bytes
) -> None:
    path, key = write(tmp_path / "a.lmdb", version=version), spec_key("counts")
    change(path, {key: spec} if version == 1 else {**with_checksum(key, spec)})
    with pytest.raises(MagnetError, match=r"a\.lmdb: expected its (spec of 'counts'|list of arrays) as it was written"):
        ArrayFile(path)


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize("header", [b"", b"{", b"[]", b"3", b"\xff\xfe\x00", b'"\xff"', b"[" * 1_000])
def test_a_header_that_is_no_mapping_is_one_line(tmp_path: Path, version: int, header: bytes) -> None:
    path = write(tmp_path / "a.lmdb", version=version)
    change(path, {HEADER_KEY: header} if version == 1 else {**with_checksum(HEADER_KEY, header)})
    with pytest.raises(MagnetError, match=r"a\.lmdb: expected its header as it was written, found .*; delete it"):
        ArrayFile(path)


@pytest.mark.parametrize("find", [lambda header: header["mqq"], lambda header: header["levels"]["bin8"]["patch"]])
def test_a_field_that_a_header_lacks_is_one_line(tmp_path: Path, find: Callable[[Any], Any]) -> None:
    header = ArrayFile(write(tmp_path / "a.lmdb", version=1)).header
    with pytest.raises(MagnetError, match=r"a\.lmdb: expected its header as it was written, found none of its fields"):
        find(header)
    assert header == HEADER
    assert header.get("mqq") is None


@pytest.mark.parametrize("stated", [b"", b"x", b"0", b"-1", b"1.5", b"\xff", b"9" * 5000])
def test_a_schema_version_that_is_no_number_is_one_line(tmp_path: Path, stated: bytes) -> None:
    path = change(write(tmp_path / "a.lmdb", version=1), {SCHEMA_KEY: stated})
    with pytest.raises(MagnetError, match="its schema version as it was written, found '"):
        ArrayFile(path)


def test_a_file_of_version_2_is_not_taken_for_one_of_version_1(tmp_path: Path) -> None:
    path = change(write(tmp_path / "a.lmdb"), {SCHEMA_KEY: b"1", HEADER_KEY: b'{"mpp":1}'})
    with pytest.raises(MagnetError, match="its schema version as it was written"):
        ArrayFile(path)


def test_damaged_text_is_one_line_where_nobody_compares_checksums(tmp_path: Path) -> None:
    path = write(tmp_path / "a.lmdb")
    stored = "µ".encode()
    content = path.read_bytes()
    path.with_name("b.lmdb").write_bytes(content.replace(b"MT-CO1" + stored, b"MT-CO1" + stored[::-1]))
    file = ArrayFile(path.with_name("b.lmdb"))
    assert file.verify() == ["names: block 0 does not match its checksum"]
    with pytest.raises(MagnetError, match="names: expected text in UTF-8, found .*; run 'cache verify'"):
        file.read("names")


@pytest.mark.parametrize(("shape", "missing"), [(b'"shape":[4]', [1]), (b'"shape":[5]', [0, 1])])
def test_a_partial_file_with_a_damaged_spec_starts_afresh(tmp_path: Path, shape: bytes, missing: list[int]) -> None:
    path = tmp_path / "a.lmdb"
    with ArrayWriter(path, HEADER) as writer:
        writer.declare("a", (4,), np.int32, block_rows=2)
        writer.put_block("a", 0, np.arange(2, dtype=np.int32))
    partial_path(path).write_bytes(partial_path(path).read_bytes().replace(b'"shape":[4]', shape))
    with ArrayWriter(path, HEADER) as writer:
        writer.declare("a", (4,), np.int32, block_rows=2)
        assert writer.missing_blocks("a") == missing


def test_a_partial_file_of_version_1_starts_afresh(tmp_path: Path) -> None:
    path = tmp_path / "a.lmdb"
    with ArrayWriter(path, HEADER) as writer:
        writer.put("a", np.arange(3))
        writer.commit()
    as_version_1(path).rename(partial_path(path))
    with ArrayWriter(path, HEADER) as writer:
        assert writer.missing_blocks(writer.declare("a", (3,), np.int64).name) == [0]


def test_a_header_that_was_damaged_while_it_was_written_is_not_committed(tmp_path: Path) -> None:
    with ArrayWriter(tmp_path / "a.lmdb", HEADER) as writer:
        writer.put("a", np.arange(3))
        writer._put({HEADER_KEY: b"{}"})
        with pytest.raises(MagnetError, match=r"a\.lmdb\.partial: expected its header as it was written"):
            writer.commit()
    assert not (tmp_path / "a.lmdb").exists()


def test_verify_reads_on_after_files_that_cannot_be_opened(tmp_path: Path) -> None:
    store = Store.create(tmp_path)
    store.register([{"slide_id": name} for name in "ABCDE"])
    for slide_id, version in zip("ABCDE", (2, 1, 2, 2, 2), strict=True):
        write(store.geometry_path(slide_id), version=version, slide_id=slide_id)
    change(store.geometry_path("A"), {HEADER_KEY: b"{}"})
    change(store.geometry_path("B"), {spec_key("counts"): b"{"})
    store.geometry_path("C").write_bytes(b"no LMDB file" * 1000)
    change(store.geometry_path("D"), {b"check/counts/00000000": b"\0" * 8})
    checked = CliRunner().invoke(app, ["verify", str(tmp_path)])

    *lines, last = checked.stdout.splitlines()
    assert checked.exit_code == 1
    assert last.endswith("5 files read, 4 faults")
    for line, slide_id, part in zip(
        lines, "ABCD", ("its header", "its spec of 'counts'", "an LMDB file", "counts: block 0"), strict=True
    ):
        assert line.startswith(f"{store.geometry_path(slide_id)}: ")
        assert part in line
        assert "delete it and run 'extract run' again" in line


def test_the_checksum_of_all_specs_depends_on_no_order() -> None:
    specs = [make_spec(name, (3,), dtype="<i4") for name in "ab"]
    assert specs_checksum(specs) == specs_checksum(specs[::-1]) != specs_checksum(specs[:1])

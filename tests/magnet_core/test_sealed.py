"""Sealed JSON: what was written comes back; a flipped bit anywhere is one line or changes nothing that is read."""

import json
import random
from pathlib import Path

import pytest

from magnet_core.errors import MagnetError
from magnet_core.sealed import MOST_BYTES, read_json, read_sealed, write_sealed

CONTENT = {"version": 2, "mpp": 0.2738, "slides": {"S1": [1, 2.5, None, True]}, "name": "Käfer", "patient": "P1"}
EXPECTED = {"expected": "a record", "remedy": "make it anew"}


def fault_of(path: Path) -> str | None:
    """What is said of a file; any other error than ours fails the test."""
    try:
        read_sealed(path, **EXPECTED)
    except MagnetError as error:
        return str(error)
    return None


def test_what_was_written_is_read(tmp_path: Path) -> None:
    path = tmp_path / "record.json"
    write_sealed(path, {**CONTENT, "loss": float("nan"), "pair": (1, 2)})
    assert read_sealed(path, **EXPECTED) == {**CONTENT, "loss": None, "pair": [1, 2]}
    assert next(iter(json.loads(path.read_text()))) == "checksum"


def test_a_file_without_checksum_is_read(tmp_path: Path) -> None:
    path = tmp_path / "record.json"
    path.write_text(json.dumps(CONTENT))
    assert read_sealed(path, **EXPECTED) == CONTENT


def test_layout_and_order_may_change(tmp_path: Path) -> None:
    path = tmp_path / "record.json"
    write_sealed(path, CONTENT)
    written = json.loads(path.read_text())
    path.write_text(json.dumps(dict(reversed(written.items()))))
    assert read_sealed(path, **EXPECTED) == CONTENT


def test_every_flipped_bit_is_told_or_harmless(tmp_path: Path) -> None:
    path = tmp_path / "record.json"
    write_sealed(path, CONTENT)
    whole = path.read_bytes()
    told = 0
    for place in range(len(whole)):
        for bit in range(8):
            path.write_bytes(whole[:place] + bytes([whole[place] ^ 1 << bit]) + whole[place + 1 :])
            fault = fault_of(path)
            told += fault is not None
            assert fault is not None or read_sealed(path, **EXPECTED) == CONTENT
    assert told > 0.9 * 8 * len(whole)


@pytest.mark.parametrize(
    "text",
    [b"", b"{", b"[" * 100_000, b"1" * 5_000, b'{"a": ' * 50_000, b"\xff\xfe", b"[1, 2]", b'"text"', b"null"],
    ids=["empty", "cut", "deep", "digits", "deep objects", "no text", "list", "string", "null"],
)
def test_what_is_no_record_is_one_line(tmp_path: Path, text: bytes) -> None:
    path = tmp_path / "record.json"
    path.write_bytes(text)
    with pytest.raises(MagnetError, match="record.json: expected a record"):
        read_sealed(path, **EXPECTED)


def test_what_cannot_be_read_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(MagnetError, match="No such file"):
        read_json(tmp_path / "nothing.json", **EXPECTED)
    with pytest.raises(MagnetError, match="directory"):
        read_json(tmp_path, **EXPECTED)
    with (tmp_path / "large.json").open("wb") as file:
        file.truncate(MOST_BYTES + 1)
    with pytest.raises(MagnetError, match="at most 256 MiB"):
        read_json(tmp_path / "large.json", **EXPECTED)


def test_random_bytes_never_raise_another_error(tmp_path: Path) -> None:
    path, rng = tmp_path / "record.json", random.Random(0)
    for _ in range(300):
        path.write_bytes(bytes(rng.choices(b'{}[]",:0123456789.eE-+\\untrfals \xff', k=rng.randrange(40))))
        fault = fault_of(path)
        assert fault is None or fault.startswith(f"{path}: expected a record")

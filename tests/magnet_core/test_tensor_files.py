"""Files of tensors that anyone may have made: whole, or refused in one line, and nothing of theirs is run."""

import io
import json
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from magnet_core.backbones.checkpoint import read_weights
from magnet_core.errors import MagnetError
from magnet_core.tensor_files import read_safetensors, read_torch

SAID = {"expected": "weights", "remedy": "get them again"}
TENSORS = {"a": torch.arange(6.0).reshape(2, 3), "b": torch.ones(2)}


def safetensors(header: bytes, body: bytes = b"", length: int | None = None) -> bytes:
    return struct.pack("<Q", len(header) if length is None else length) + header + body


def described(**changed: object) -> bytes:
    tensor = {"dtype": "F32", "shape": [1], "data_offsets": [0, 4], **changed}
    return safetensors(json.dumps({"a": tensor}).encode(), b"\0\0\0\0")


HEADERS = {
    "nothing": b"",
    "half a length": b"\1\0\0",
    "no header": safetensors(b""),
    "a length beyond the file": safetensors(b"{}", length=2**63),
    "no JSON": safetensors(b"\xff{"),
    "nested": safetensors(b"[" * 200_000),
    "nested values": safetensors(b'{"a":' * 50_000 + b"1" + b"}" * 50_000),
    "a list": safetensors(b"[1, 2]"),
    "a number of 5,000 digits": described(shape=int("9" * 4000)),
    "a shape that overflows": described(shape=[2**40, 2**40]),
    "a shape of terabytes": described(shape=[2**40]),
    "a negative shape": described(shape=[-1]),
    "offsets beyond the file": described(data_offsets=[0, 2**50]),
    "offsets that go back": described(data_offsets=[4, 0]),
    "an unknown type": described(dtype="F1024"),
}


@pytest.mark.parametrize("content", HEADERS.values(), ids=HEADERS.keys())
def test_an_absurd_safetensors_header_is_one_line(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    path.write_bytes(content)
    with pytest.raises(MagnetError, match=r"w\.safetensors: expected weights, found a file that cannot be") as told:
        read_safetensors(path, **SAID)
    assert len(str(told.value)) < 500


def pickled(program: bytes) -> bytes:
    """A torch file whose pickle is this program."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        file.writestr("archive/data.pkl", program)
        file.writestr("archive/version", "3\n")
        file.writestr("archive/byteorder", "little")
    return buffer.getvalue()


PROGRAMS = {
    "a call": b"\x80\x02cposix\nsystem\nq\x00X\x04\x00\x00\x00trueq\x01\x85q\x02Rq\x03.",
    "an empty stack": b"\x80\x02.",
    "a memo that is not there": b"\x80\x02h\x07.",
    "no end": b"\x80\x02}",
    "an unknown code": b"\x80\x02\xfe.",
    "a storage that is not there": (
        b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\n(X\x07\x00\x00\x00storagectorch\nFloatStorage\n"
        b"X\x01\x00\x00\x000X\x03\x00\x00\x00cpuK\x04tQK\x00(K\x04t(K\x01t\x89ccollections\nOrderedDict\n)RtR."
    ),
    "a tensor of nothing": b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\n)R.",
    "a state that is no dict": b"\x80\x02ccollections\nOrderedDict\n)RK\x01b.",
}


@pytest.mark.parametrize("program", PROGRAMS.values(), ids=PROGRAMS.keys())
@pytest.mark.parametrize("wrap", [pickled, bytes], ids=["zip", "bare"])
def test_a_crafted_torch_file_is_one_line(program: bytes, wrap: Callable[[bytes], bytes], tmp_path: Path) -> None:
    path = tmp_path / "w.pth"
    path.write_bytes(wrap(program))
    with pytest.raises(MagnetError, match=r"w\.pth: expected .*a torch state dict .*, found a file that cannot be"):
        read_weights(path, name="resnet50")


def test_entries_that_torch_does_not_write_are_not_unpacked(tmp_path: Path) -> None:
    path = tmp_path / "w.pth"
    torch.save(TENSORS, path)
    with zipfile.ZipFile(path) as before, zipfile.ZipFile(tmp_path / "bomb.pth", "w", zipfile.ZIP_DEFLATED) as after:
        for name in before.namelist():
            after.writestr(name, before.read(name))
    with pytest.raises(MagnetError, match="compressed entries, which torch does not write"):
        read_torch(tmp_path / "bomb.pth", expected="weights", remedy="get them again")


def test_a_fault_of_the_machine_is_not_the_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> object:
        raise MemoryError

    save_file(TENSORS, tmp_path / "w.safetensors")
    monkeypatch.setattr("magnet_core.tensor_files.load_file", refuse)
    with pytest.raises(MemoryError):
        read_safetensors(tmp_path / "w.safetensors", **SAID)

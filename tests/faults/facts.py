"""What a folder says, as text: file and part -> a digest of its value. Two folders that say the same are equal here.

In: a store, a folder of runs, predictions. Out: facts of all files that count. Left out is what tells of the
course of a run, not of its outcome: times, versions of packages, logs, locks, pictures, databases.
"""

import hashlib
import json
import re
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from cache.reader import ArrayFile

BYTES = {".safetensors", ".npy", ".parquet", ".csv", ".txt", ".md", ".tex"}
OF_THE_COURSE = {
    "created", "updated", "provenance", "versions", "seconds", "started", "ended", "minutes", "checksum", "duration",
    "train_seconds", "fit_seconds", "predict_seconds", "trials.csv", "best.toml",
}  # fmt: skip
_OF_A_PROCESS = re.compile(r"\.\d+\.partial$")
TIMED = {"trials.csv"}


def facts_of(folder: Path, *, ignoring: tuple[str, ...] = ()) -> dict[str, str]:
    """Facts of all files below a folder, but for those whose relative path begins with one of `ignoring`."""
    facts: dict[str, str] = {}
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        name = path.relative_to(folder).as_posix()
        if path.name in TIMED or name.startswith(ignoring):
            continue
        facts |= {f"{name}:{part}": value for part, value in _facts_of_file(path).items()}
    return facts


def differences(one: dict[str, str], other: dict[str, str]) -> list[str]:
    """Names of facts that are in one alone, or not the same in both."""
    return sorted(name for name in one.keys() | other.keys() if one.get(name) != other.get(name))


def _facts_of_file(path: Path) -> dict[str, str]:
    if _OF_A_PROCESS.search(path.name):  # of one that was killed; it stands for nothing
        return {}
    if path.name.endswith(".partial"):
        return {"": "unfinished"}
    if path.suffix == ".toml":  # whose remarks tell of the number of a trial, which others that were killed took
        lines = [line for line in path.read_bytes().splitlines() if not line.startswith(b"#")]
        return {"": digest(b"\n".join(lines))}
    if path.suffix in BYTES:
        return {"": digest(path.read_bytes())}
    if path.suffix == ".json":
        return {"": digest(json.dumps(_lasting(json.loads(path.read_bytes())), sort_keys=True).encode())}
    if path.suffix == ".lmdb":
        with ArrayFile(path) as file:
            return facts_of_arrays(file)
    if path.suffix == ".npz":
        with np.load(path) as arrays:
            return {name: digest(_bytes_of(arrays[name])) for name in arrays.files}
    if path.suffix in {".h5ad", ".h5"}:
        return _facts_of_hdf5(path)
    return {}


def facts_of_arrays(file: ArrayFile) -> dict[str, str]:
    """Facts of an opened file of the store: its header, and each array."""
    facts = {"header": digest(json.dumps(file.header, sort_keys=True).encode())}
    for name in file.names():
        values = file.read(name)
        facts[name] = f"{values.dtype} {values.shape} {digest(_bytes_of(values))}"
    return facts


def _facts_of_hdf5(path: Path) -> dict[str, str]:
    facts: dict[str, str] = {}

    def visit(name: str, item: Any) -> None:
        if isinstance(item, h5py.Dataset) and "versions" not in name:
            facts[name] = digest(_content_of(item[()]))

    with h5py.File(path) as file:
        file.visititems(visit)
    return facts


def _content_of(value: Any) -> bytes:
    """Bytes that tell a dataset's value from others; text is of variable length, and lies elsewhere."""
    if isinstance(value, np.ndarray) and value.dtype.kind in "biuf":
        return f"{value.dtype} {value.shape} ".encode() + _bytes_of(value)
    return repr(value.tolist() if hasattr(value, "tolist") else value).encode()


def _lasting(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _lasting(item) for name, item in value.items() if name not in OF_THE_COURSE}
    return [_lasting(item) for item in value] if isinstance(value, list) else value


def _bytes_of(values: np.ndarray) -> bytes:
    return np.ascontiguousarray(values).tobytes()


def digest(content: bytes) -> str:
    """A short name of some bytes."""
    return hashlib.sha256(content).hexdigest()[:16]

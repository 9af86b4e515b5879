"""Digests change with what decides the bytes, and with nothing else."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from cache.canonical import canonical_json
from cache.fingerprint import digest, file_fingerprint
from cache.state_digest import state_sha256
from magnet_core.errors import MagnetError

SETTINGS: dict[str, object] = {
    "backbone": "resnet50",
    "weights_sha256": "ab12",
    "mean": (0.485, 0.456, 0.406),
    "patch_um": {"bin": 28.0, "spot": 56.0},
    "tokens": 4,
    "views": 1,
    "slide": "123-ff",
}


def test_a_digest_changes_with_every_setting() -> None:
    changed = [digest(SETTINGS | {key: "other"}) for key in SETTINGS]
    without = [digest({key: value for key, value in SETTINGS.items() if key != left_out}) for left_out in SETTINGS]
    deep = digest(SETTINGS | {"patch_um": {"bin": 28.0, "spot": 57.0}})
    assert len({digest(SETTINGS), digest(SETTINGS | {"new": 1}), deep, *changed, *without}) == 3 + 2 * len(SETTINGS)


def test_a_digest_ignores_what_is_named_neutral_where_it_stands_and_nowhere_else() -> None:
    neutral = ("workers", "nested.workers")
    assert digest(SETTINGS | {"workers": 3}, neutral=neutral) == digest(SETTINGS)
    assert digest({"nested": {"a": 1, "workers": 3}}, neutral=neutral) == digest({"nested": {"a": 1}})
    deeper = {"nested": {"a": {"workers": 3}}, "other": {"workers": 3}}
    assert digest(deeper, neutral=neutral) == digest(deeper)
    assert digest(SETTINGS | {"workers": 3}) != digest(SETTINGS)


def test_files_are_named_without_waiting_for_torch() -> None:
    code = "import sys, cache.fingerprint, cache.exchange, cache.store; print('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "False\n"


def test_the_digest_of_a_fixed_value_stays() -> None:
    assert digest({"b": [1, 2.5], "a": {"c": None}}) == "2109ed063e01"


def test_a_digest_does_not_depend_on_order_or_on_the_kind_of_number() -> None:
    assert digest(dict(reversed(SETTINGS.items()))) == digest(SETTINGS)
    assert digest(SETTINGS | {"tokens": np.int64(4)}) == digest(SETTINGS)
    assert len(digest(SETTINGS)) == 12
    assert digest(SETTINGS, length=40).startswith(digest(SETTINGS))


def test_canonical_json_has_one_spelling() -> None:
    assert canonical_json({"b": (1, 2.5), "a": Path("x/y"), "µ": None}) == '{"a":"x/y","b":[1,2.5],"µ":null}'


@pytest.mark.parametrize("value", [{1: "a"}, {"a": float("nan")}, {"a": {1, 2}}, {"a": object()}])
def test_what_has_no_single_spelling_is_refused(value: dict[str, object]) -> None:
    with pytest.raises(MagnetError, match="settings"):
        canonical_json(value)


def test_a_file_fingerprint_sees_head_tail_samples_and_size(tmp_path: Path) -> None:
    path = tmp_path / "slide.btf"
    content = bytearray(np.random.default_rng(0).bytes(9 << 20))
    path.write_bytes(content)
    seen = {file_fingerprint(path)}
    for position in (0, len(content) - 1):
        changed = content.copy()
        changed[position] ^= 1
        path.write_bytes(changed)
        seen.add(file_fingerprint(path))
    path.write_bytes(content + b"\0")
    seen.add(file_fingerprint(path))
    path.write_bytes(content)

    assert len(seen) == 4
    assert file_fingerprint(path) in seen


def test_a_small_file_is_fingerprinted_whole(tmp_path: Path) -> None:
    path = tmp_path / "counts.h5"
    path.write_bytes(bytes(100_000))
    before = file_fingerprint(path)
    path.write_bytes(bytes(70_000) + b"\1" + bytes(29_999))
    assert file_fingerprint(path) != before
    with pytest.raises(MagnetError, match=r"samples\.csv"):
        file_fingerprint(tmp_path / "absent")


def test_a_state_digest_covers_names_dtypes_shapes_and_bytes() -> None:
    weights = torch.arange(6, dtype=torch.float32)
    state = {"a": weights, "b": torch.tensor(3)}
    others = [
        {"a": weights, "c": torch.tensor(3)},
        {"a": weights.reshape(2, 3), "b": torch.tensor(3)},
        {"a": weights.view(torch.int32), "b": torch.tensor(3)},
        {"a": weights + 1, "b": torch.tensor(3)},
        {"a": weights},
    ]
    assert len({state_sha256(state), *map(state_sha256, others)}) == 6


def test_a_state_digest_ignores_order_library_and_strides() -> None:
    matrix = torch.arange(6, dtype=torch.float32).reshape(2, 3)
    state = {"a": matrix, "half": torch.ones(3, dtype=torch.bfloat16)}
    assert state_sha256({"half": state["half"], "a": matrix.T.contiguous().T}) == state_sha256(state)
    assert state_sha256({"a": matrix.numpy()}) == state_sha256({"a": matrix})

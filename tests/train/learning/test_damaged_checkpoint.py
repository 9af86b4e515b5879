"""A checkpoint, or the best weights beside it, with any byte changed is noticed, and what was written is read."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import nn

from magnet_core.errors import MagnetError
from train.learning.checkpoint import CHECKPOINT, best_path, read_checkpoint, write_checkpoint
from train.learning.progress import Progress, TrainingState

CPU = torch.device("cpu")


def state_of(weight: float) -> TrainingState:
    module = nn.Linear(2, 1, bias=False)
    nn.init.constant_(module.weight, weight)
    return TrainingState(module, None, {})


def changed(content: bytes) -> Iterator[bytes]:
    """The bytes with each one of them changed, and cut at some places."""
    for place, byte in enumerate(content):
        yield content[:place] + bytes([byte ^ 0x15]) + content[place + 1 :]
    for length in range(0, len(content), 97):
        yield content[:length]


def test_every_changed_byte_of_a_checkpoint_is_noticed_or_without_effect(tmp_path: Path) -> None:
    write_checkpoint(tmp_path, {"module": nn.Linear(2, 1)}, {"step": 7}, device=CPU)
    whole = read_checkpoint(tmp_path)
    assert whole is not None
    assert whole["step"] == 7
    path = tmp_path / CHECKPOINT
    content = path.read_bytes()
    unnoticed = 0
    for damaged in changed(content):
        path.write_bytes(damaged)
        try:
            read = read_checkpoint(tmp_path)
        except MagnetError as error:
            assert "delete it, and give the command again" in str(error)  # noqa: PT017
            continue
        unnoticed += 1
        assert read is not None
        assert all(torch.equal(read["module"][name], value) for name, value in whole["module"].items())
        assert read["step"] == 7
    assert unnoticed < 20  # the mark of the checksum alone


def test_a_checkpoint_of_before_has_no_checksum_and_is_gone_on_with(tmp_path: Path) -> None:
    torch.save({"step": 3}, tmp_path / CHECKPOINT)
    assert read_checkpoint(tmp_path) == {"step": 3}


def test_the_best_weights_are_those_of_the_checkpoint_that_names_them(tmp_path: Path) -> None:
    state = state_of(1.0)
    state.progress = Progress(epoch=1, scores=[0.5])
    state.keep_best(tmp_path)
    state.save(tmp_path, settings={})
    nn.init.constant_(state.module.weight, 2.0)  # type: ignore[arg-type]
    state.progress.epoch, state.progress.scores = 2, [0.5, 0.6]
    state.keep_best(tmp_path)  # and killed before the next checkpoint
    resumed = state_of(0.0)
    assert resumed.resume(tmp_path, settings={})
    resumed.finish(tmp_path)
    assert resumed.module.state_dict()["weight"].tolist() == [[1.0, 1.0]]
    state.save(tmp_path, settings={})
    assert [path.name for path in tmp_path.glob("best*")] == ["best-2.safetensors"]


def test_changed_best_weights_are_not_kept(tmp_path: Path) -> None:
    state = state_of(1.0)
    state.progress = Progress(epoch=1, scores=[0.5])
    state.keep_best(tmp_path)
    path = best_path(tmp_path, 1)
    content = path.read_bytes()
    for damaged in changed(content):
        path.write_bytes(damaged)
        with pytest.raises(
            MagnetError, match=r"best-1\.safetensors: expected the bytes that were written.*; delete .*"
        ):
            state.finish(tmp_path)
    path.unlink()
    with pytest.raises(MagnetError, match=r"best-1\.safetensors: .* found no file; delete .*checkpoint\.pt"):
        state.finish(tmp_path)


def test_weights_of_a_training_that_an_older_version_began_are_read(tmp_path: Path) -> None:
    state = state_of(1.0)
    state.progress = Progress(epoch=1, scores=[0.5])
    state.keep_best(tmp_path)
    best_path(tmp_path, 1).rename(tmp_path / "best.safetensors")
    again = state_of(0.0)
    again.progress = Progress(epoch=1, scores=[0.5], best_epoch=1)
    again.finish(tmp_path)
    assert again.module.state_dict()["weight"].tolist() == [[1.0, 1.0]]

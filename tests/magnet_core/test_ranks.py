"""Processes of one training: shares of rows without overlap, and nothing exchanged where one is alone."""

import numpy as np
import pytest
import torch

from magnet_core.engine.options import EngineName, choose_engine
from magnet_core.errors import MagnetError
from magnet_core.ranks import Ranks, ranks, together


@pytest.mark.parametrize("size", [1, 2, 3, 8])
@pytest.mark.parametrize("num_rows", [1, 2, 7, 8, 9, 256])
def test_shares_are_equal_and_one_below_the_other_they_are_all_rows(num_rows: int, size: int) -> None:
    rows = np.arange(num_rows) * 3 + 1
    shares = [Ranks(rank, size).share(rows) for rank in range(size)]
    assert len({len(share) for share in shares}) == 1
    assert np.array_equal(np.concatenate(shares)[:num_rows], rows)
    assert set(np.concatenate(shares)[num_rows:]) <= {rows[-1]}  # what fills the last shares up counts for nothing
    assert len(shares[0]) == -(-num_rows // size)


def test_a_process_alone_exchanges_nothing() -> None:
    with together() as alone:
        assert alone == ranks() == Ranks(0, 1)
        assert alone.is_first
    part, module, tensor = torch.ones(3, 2), torch.nn.Linear(2, 1), torch.ones(1)
    assert alone.gather(part, 2) is part
    assert alone.agree("own") == "own"
    assert (alone.any(True), alone.any(False)) == (True, False)
    assert alone.parallel(module) is module
    alone.copy_first([tensor])
    assert tensor == 1


def test_work_that_is_spread_otherwise_is_refused_under_torchrun(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "none")
    monkeypatch.setenv("WORLD_SIZE", "1")
    choose_engine(EngineName.LOCAL, jobs=1, address=None, needs=None)
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(MagnetError, match="torchrun: expected train fit, .* leave torchrun out, and give --jobs"):
        choose_engine(EngineName.LOCAL, jobs=1, address=None, needs=None)


def test_more_processes_than_gpus_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    named = {"TORCHELASTIC_RUN_ID": "none", "WORLD_SIZE": "2", "RANK": "1", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "2"}
    for name, value in named.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with (
        pytest.raises(MagnetError, match=r"as it has GPUs \(1\), found process 2 of 2; lower --nproc-per-node"),
        together(),
    ):
        raise AssertionError("entered")

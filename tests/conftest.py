"""What all tests share: one torch thread, and real sample data where a machine has it."""

import signal
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).resolve().parent.parent

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # as in the background of a shell; tests send it to themselves
    signal.signal(signal.SIGINT, signal.default_int_handler)
torch.set_num_threads(1)  # tensors are tiny, workers run side by side, and sums come out the same everywhere


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Folder of real slides and counts beside the repository; they are never part of it, so most machines skip."""
    folder = ROOT.parent / "shared" / "data"
    if not folder.is_dir():
        pytest.skip(f"no real sample data in {folder}")
    return folder

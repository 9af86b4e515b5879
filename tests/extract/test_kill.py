"""`extract run` killed without warning, again and again, ends with the values of a run that was never killed."""

import random
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest

from cache.reader import ArrayFile
from cache.store import Store

KILLS = 20


def command(samples: Path, store: Path) -> list[str]:
    options = ["--samples", str(samples), "--store", str(store), "--backbone", "timm:test_convnext"]
    small = ["--weights", "random", "--bins", "600", "--spots", "60", "--tokens", "2", "--targets", "8,55"]
    return [sys.executable, "-m", "extract", "run", *options, *small]


def started(folder: Path) -> bool:
    return any(folder.rglob("*.partial"))


def last_written(folder: Path) -> int:
    """When an unfinished file was last written to, 0 where there is none."""
    written = [0]
    for path in folder.rglob("*.partial"):
        with suppress(FileNotFoundError):  # finished meanwhile
            written.append(path.stat().st_mtime_ns)
    return max(written)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_twenty_kills_and_a_resume_leave_the_values_of_one_run(small_samples: Path, tmp_path: Path) -> None:
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    with subprocess.Popen(
        command(small_samples, whole), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as process:
        while not started(whole):
            assert process.poll() is None
            time.sleep(0.02)
        at_work = time.monotonic()
    assert process.returncode == 0
    to_work = time.monotonic() - at_work
    rng = random.Random(0)
    kills_at_work = 0
    for _ in range(KILLS):
        before = last_written(killed)
        with subprocess.Popen(command(small_samples, killed), stdout=-3, stderr=-3) as process:
            while last_written(killed) == before and process.poll() is None:
                time.sleep(0.01)
            time.sleep(rng.uniform(0, 2 / KILLS) * to_work)  # what is left shrinks with each run
            if process.poll() is None:
                kills_at_work += 1
                process.send_signal(signal.SIGKILL)
    subprocess.run(command(small_samples, killed), check=True, capture_output=True)
    assert kills_at_work > KILLS // 2
    assert not started(killed)
    files = sorted(path.relative_to(whole) for path in whole.rglob("*.lmdb"))
    assert files == sorted(path.relative_to(killed) for path in killed.rglob("*.lmdb"))
    for name in files:
        with ArrayFile(whole / name) as expected, ArrayFile(killed / name) as resumed:
            assert expected.names() == resumed.names()
            for array in expected.names():
                np.testing.assert_array_equal(resumed.read(array), expected.read(array), err_msg=f"{name}: {array}")
    assert Store(killed).slide_ids() == Store(whole).slide_ids()

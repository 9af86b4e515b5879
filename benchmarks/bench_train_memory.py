"""Peak memory of one training step, by graph size and micro-batch: a process of its own for every figure.

In: the store of `bench_train_slide`, a backbone, fine rows of a subgraph, patches encoded at a time (0: all at once).
Out, on the last line: the subgraph's rows and the bytes that the step took above what was held when everything was
built. On a GPU these are torch's allocations, on the CPU the process's resident memory (Linux), from a process that
gives back what it frees: else the figure holds what malloc keeps for later, which differs from run to run.

    python benchmarks/bench_train_memory.py STORE resnet50 256 16
"""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import torch
from bench_train_run import TrainingRun
from bench_train_slide import open_made

from magnet_core.device import pick_device

# glibc raises both by itself to 32 and 64 MiB, unless they are set.
FREED_IS_GIVEN_BACK = {"MALLOC_MMAP_THRESHOLD_": str(1 << 16), "MALLOC_TRIM_THRESHOLD_": str(1 << 16)}
STATUS, CLEAR_REFS = Path("/proc/self/status"), Path("/proc/self/clear_refs")


def measure_peak(store: Path, backbone: str, graph_size: int, micro_batch: int) -> tuple[int, int]:
    """Rows of the subgraph and peak bytes of its step, measured in a new process."""
    arguments = [str(store), backbone, str(graph_size), str(micro_batch)]
    done = subprocess.run(
        [sys.executable, __file__, *arguments],
        env={**os.environ, **FREED_IS_GIVEN_BACK},
        check=True,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    rows, peak = map(int, done.stdout.split()[-2:])
    return rows, peak


def main(store: str, backbone: str, graph_size: str, micro_batch: str) -> None:
    """Take one step as the trainer does, the next subgraphs being read meanwhile, and print what it took."""
    device = pick_device()
    if device.type == "cpu":
        torch.set_num_threads(1)
    run = TrainingRun.build(
        open_made(Path(store), backbone),
        [f"optim.batch_size={graph_size}", f"compute.micro_batch={micro_batch}"],
    )
    parts = run.parts(epoch=0)

    def step() -> None:
        batches = run.batches(parts)
        run.step(next(batches))
        batches.close()

    print(len(parts[0].rows), peak_above_start(step, device))


def peak_above_start(work: Callable[[], None], device: torch.device) -> int:
    """Bytes that some work takes at its peak above what is held before it."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        work()
        return torch.cuda.max_memory_allocated(device) - before
    CLEAR_REFS.write_text("5")  # the peak of the process so far is forgotten
    before = resident_bytes("VmRSS")
    work()
    return resident_bytes("VmHWM") - before


def resident_bytes(field: str) -> int:
    """Resident memory of this process, now (VmRSS) or at its peak (VmHWM)."""
    line = next(line for line in STATUS.read_text().splitlines() if line.startswith(field))
    return int(line.split()[1]) * 1024


if __name__ == "__main__":
    main(*sys.argv[1:])

"""Stage two against the limits it cannot beat, all in one run: prints rows, writes benchmarks/results/train.json.

    what    what is compared with what
    ratio   ours ÷ the limit
    goal    the most it may be
    holds   whether it does

One slide of 6,000 bins, 2,500 spots and 484 regions, see `bench_train_slide`; random weights. On a GPU: the paper's
batch of 256, resnet50 and ViT-L/16 in bf16. On the CPU: resnet50 at batch 32 with one torch thread, so that the thread
that reads subgraphs has a core of its own, as beside a GPU.

    python benchmarks/bench_train.py
"""

import json
import statistics
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from bench_extract import add
from bench_train_memory import measure_peak
from bench_train_run import UNCOUNTED, TrainingRun
from bench_train_slide import SlideSize, make_slide

from magnet_core.device import autocast, pick_device

RESULTS = Path(__file__).parent / "results" / "train.json"
REPEATS = 7  # measurements, each beside its limit: the machine's speed changes under other people's work
PAPER_BATCH = 256
AREAS = (1, 4, 16)
FROZEN = "encoder.mode=frozen"
GRAPH_SIZES, MICRO_BATCH = (32, 256), 16
GROWTH_STEPS = 12


@dataclass(frozen=True)
class Scale:
    """What a device is asked to do in minutes.

    steps     fine-tuned steps of one measurement
    uncached  the two graph sizes whose memory is compared without the gradient cache
    """

    backbones: tuple[str, ...]
    batch_size: int
    steps: int
    uncached: tuple[int, int]


SCALES = {
    "cpu": Scale(("resnet50",), 32, 2, (32, 96)),
    "cuda": Scale(("resnet50", "timm:vit_large_patch16_224"), PAPER_BATCH, 20, (32, 256)),
}


def main() -> None:
    """Measure everything and write the rows."""
    device = pick_device()
    scale = SCALES[device.type]
    if device.type == "cpu":
        torch.set_num_threads(1)
    rows: list[dict[str, object]] = []
    with tempfile.TemporaryDirectory() as folder:
        for backbone in scale.backbones:
            store = Path(folder, backbone.replace(":", "-"))
            steps(rows, store, backbone, scale)
            memory(rows, store, backbone, scale)
        growth(rows, Path(folder))
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps(rows, indent=2, ensure_ascii=False) + "\n")
    print(f"written: {RESULTS}")


def steps(rows: list[dict[str, object]], store: Path, backbone: str, scale: Scale) -> None:
    """Fine-tuned steps beside the encoder alone, and frozen epochs beside fine-tuned ones.

    A fine-tuned epoch is as many of its measured steps as it has. Where it does not have the paper's batch, a frozen
    epoch that does is compared with the encoder alone on all bins, which is less than a fine-tuned epoch.
    """
    slide, batch = make_slide(store, backbone, SlideSize()), f"optim.batch_size={scale.batch_size}"
    tuned, frozen = TrainingRun.build(slide, [batch]), TrainingRun.build(slide, [batch, FROZEN])
    frozen_paper = TrainingRun.build(slide, [f"optim.batch_size={PAPER_BATCH}", FROZEN])
    parts = tuned.parts(epoch=0)
    over_encoder, wait_share, frozen_share, paper_share = [], [], [], []
    for repeat in range(REPEATS):
        first = repeat * scale.steps % (len(parts) - scale.steps)
        some = parts[first : first + UNCOUNTED + scale.steps]
        timing = tuned.time_steps(some)
        alone_s = encoder_alone(tuned, [part.rows for part in some])
        over_encoder.append(timing.step_s / alone_s)
        wait_share.append(timing.wait_s / timing.step_s)
        frozen_share.append(frozen.time_epoch(repeat) / (timing.step_s * len(parts)))
        if scale.batch_size != PAPER_BATCH:
            paper_share.append(frozen_paper.time_epoch(repeat) / (alone_s * len(parts)))
        print(f"  {backbone}: step {timing.step_s:.3f} s, encoder alone {alone_s:.3f} s", flush=True)
    where = f"{backbone}, batch {scale.batch_size}"
    add(rows, f"step ÷ encoder alone (forward, backward, optimiser), {where}", statistics.median(over_encoder), 1.15)
    add(rows, f"wait for the next subgraph ÷ step, {where}", statistics.median(wait_share), 0.02)
    add(rows, f"frozen epoch ÷ fine-tuned epoch, {where}", statistics.median(frozen_share), 0.01)
    if paper_share:
        what = f"frozen epoch, batch {PAPER_BATCH} ÷ encoder alone on as many bins, {backbone}"
        add(rows, what, statistics.median(paper_share), 0.01)


def encoder_alone(run: TrainingRun, rows_of_steps: Sequence[np.ndarray]) -> float:
    """Seconds of a step of the encoder and nothing else, on bins that lie on the device; the first is not counted."""
    encoder = run.state.predictor.encoder
    assert encoder is not None
    optimiser = torch.optim.SGD(encoder.parameters(), lr=1e-6, momentum=0.9, weight_decay=1e-4, fused=True)
    batches = [torch.from_numpy(run.slide.fine.pixels(rows)).to(run.device) for rows in rows_of_steps]
    encoder.train()
    started = 0.0
    for number, patches in enumerate(batches, start=1):
        with autocast(run.config.compute.precision, run.device):
            features = encoder(patches, token_grid=1).pooled.float()
        optimiser.zero_grad(set_to_none=True)
        features.square().mean().backward()
        optimiser.step()
        if number == UNCOUNTED:
            run.finish()
            started = time.perf_counter()
    run.finish()
    return (time.perf_counter() - started) / (len(batches) - UNCOUNTED)


def memory(rows: list[dict[str, object]], store: Path, backbone: str, scale: Scale) -> None:
    """Peak memory of a step by graph size, with the gradient cache and without; each in a process of its own."""
    cached = {size: measure_peak(store, backbone, size, MICRO_BATCH) for size in GRAPH_SIZES}
    whole = {size: measure_peak(store, backbone, size, 0) for size in scale.uncached}
    for name, peaks in (("gradient cache", cached), ("encoded at once", whole)):
        (small_rows, small), (large_rows, large) = peaks.values()
        print(f"  {name}: {small / 2**30:.2f} GiB for {small_rows} bins, {large / 2**30:.2f} GiB for {large_rows}")
        # Without the cache memory may grow as the graph does, which is no claim of ours; with it, it should not grow.
        goal = 1.1 if peaks is cached else round(large_rows / small_rows, 3)
        what = f"peak memory of a step, {name}: {large_rows} bins ÷ {small_rows}, {backbone}"
        add(rows, what, large / small, goal)


def growth(rows: list[dict[str, object]], folder: Path) -> None:
    """Frozen steps on slides of 1, 4 and 16 times the bins, spots and regions, taken in turn."""
    runs = {}
    for area in AREAS:
        slide = make_slide(folder / f"area{area}", "resnet50", SlideSize(area, pixels=False))
        runs[area] = TrainingRun.build(slide, [f"optim.batch_size={PAPER_BATCH}", FROZEN])
    seconds: dict[int, list[float]] = {area: [] for area in AREAS}
    for repeat in range(REPEATS):
        for area, run in runs.items():
            seconds[area].append(run.time_steps(run.parts(repeat)[: UNCOUNTED + GROWTH_STEPS]).step_s)
    for area in AREAS[1:]:
        ratio = statistics.median(large / small for large, small in zip(seconds[area], seconds[1], strict=True))
        add(rows, f"frozen step: {area} times the slide ÷ 1, batch {PAPER_BATCH}", ratio, 1.1)


if __name__ == "__main__":
    main()

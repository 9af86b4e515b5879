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

import torch
from bench_extract import add
from bench_train_memory import measure_peak
from bench_train_run import TrainingRun
from bench_train_slide import SlideSize, make_slide

from magnet_core.device import autocast, pick_device
from train.data.rows import Rows
from train.model.predictor import Predictor

RESULTS = Path(__file__).parent / "results" / "train.json"
REPEATS = 15  # measurements, each beside its limit: the machine's speed changes under other people's work
MEMORY_REPEATS = 3
EPOCH_EVERY = 4  # measurements: a frozen epoch
PAPER_BATCH = 256
AREAS = (1, 4, 16)
FROZEN = "encoder.mode=frozen"
GRAPH_SIZES, MICRO_BATCH = (32, 256), 16
GROWTH_STEPS = 6


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

    A fine-tuned epoch is as many of its measured steps as it has. Frozen epochs of the paper's batch are compared with
    the encoder alone on all bins, which is less than a fine-tuned epoch of any batch.
    """
    slide, batch = make_slide(store, backbone, SlideSize()), f"optim.batch_size={scale.batch_size}"
    tuned, frozen = TrainingRun.build(slide, [batch]), TrainingRun.build(slide, [batch, FROZEN])
    frozen_paper = TrainingRun.build(slide, [f"optim.batch_size={PAPER_BATCH}", FROZEN])
    parts = tuned.parts(epoch=0)
    tuned.time_steps(parts[: scale.steps])  # warms up allocator and kernels
    encoder_alone(tuned, parts[: scale.steps])
    timings, alone_s, frozen_s, paper_s = [], [], [], []
    for repeat in range(REPEATS):
        first = repeat * scale.steps % (len(parts) - scale.steps + 1)
        timings.append(tuned.time_steps(parts[first : first + scale.steps]))
        alone_s.append(encoder_alone(tuned, parts[first : first + scale.steps]))
        if repeat % EPOCH_EVERY == 0:
            frozen_s.append(frozen.time_epoch(repeat))
            paper_s.append(frozen_paper.time_epoch(repeat))
        print(f"  {backbone}: step {timings[-1].step_s:.3f} s, encoder alone {alone_s[-1]:.3f} s", flush=True)
    over_encoder = statistics.median(timing.step_s / alone for timing, alone in zip(timings, alone_s, strict=True))
    tuned_epoch_s = statistics.median(timing.step_s for timing in timings) * len(parts)
    encoder_epoch_s = statistics.median(alone_s) * len(parts)
    where = f"{backbone}, batch {scale.batch_size}"
    add(rows, f"step ÷ encoder alone (forward, backward, optimiser), {where}", over_encoder, 1.15)
    wait_share = statistics.median(timing.wait_s / timing.step_s for timing in timings)
    add(rows, f"wait for the next subgraph ÷ step, {where}", wait_share, 0.02)
    add(rows, f"frozen epoch ÷ fine-tuned epoch, {where}", statistics.median(frozen_s) / tuned_epoch_s, 0.01)
    what = f"frozen epoch, batch {PAPER_BATCH} ÷ encoder alone on as many bins, {backbone}"
    add(rows, what, statistics.median(paper_s) / encoder_epoch_s, 0.01)


def encoder_alone(run: TrainingRun, parts: Sequence[Rows]) -> float:
    """Seconds of a step of the encoder and nothing else, on bins that lie on the device."""
    predictor = run.state.module
    assert isinstance(predictor, Predictor)
    assert predictor.encoder is not None
    encoder = predictor.encoder
    optimiser = torch.optim.SGD(encoder.parameters(), lr=1e-6, momentum=0.9, weight_decay=1e-4, fused=True)
    batches = [torch.from_numpy(run.slide.fine.pixels(part.rows)).to(run.device) for part in parts]
    encoder.train()
    run.finish()
    started = time.perf_counter()
    for patches in batches:
        with autocast(run.config.compute.precision, run.device):
            features = encoder(patches, token_grid=1).pooled.float()
        optimiser.zero_grad(set_to_none=True)
        features.square().mean().backward()
        optimiser.step()
    run.finish()
    return (time.perf_counter() - started) / len(batches)


def memory(rows: list[dict[str, object]], store: Path, backbone: str, scale: Scale) -> None:
    """Peak memory of a step by graph size, with the gradient cache and without; each in a process of its own."""
    wanted = {"gradient cache": (GRAPH_SIZES, MICRO_BATCH), "encoded at once": (scale.uncached, 0)}
    for name, (sizes, micro_batch) in wanted.items():
        measured = [[measure_peak(store, backbone, size, micro_batch) for size in sizes] for _ in range(MEMORY_REPEATS)]
        (small_rows, small), (large_rows, large) = map(statistics.median_low, zip(*measured, strict=True))
        print(f"  {name}: {small / 2**30:.2f} GiB for {small_rows} bins, {large / 2**30:.2f} GiB for {large_rows}")
        # Without the cache memory may grow as the graph does, which is no claim of ours; with it, it should not grow.
        goal = 1.1 if micro_batch else round(large_rows / small_rows, 3)
        what = f"peak memory of a step, {name}: {large_rows} bins ÷ {small_rows}, {backbone}"
        add(rows, what, large / small, goal)


def growth(rows: list[dict[str, object]], folder: Path) -> None:
    """Frozen steps on slides of 1, 4 and 16 times the bins, spots and regions, taken in turn.

    By the bin: the sampler cuts a slide into equal parts, which hold 250 bins of the small slide and 255 of the others.
    """
    runs = {}
    for area in AREAS:
        slide = make_slide(folder / f"area{area}", "resnet50", SlideSize(area, pixels=False))
        runs[area] = TrainingRun.build(slide, [f"optim.batch_size={PAPER_BATCH}", FROZEN])
    seconds: dict[int, list[float]] = {area: [] for area in AREAS}
    for repeat in range(REPEATS):
        for area, run in runs.items():
            parts = run.parts(repeat)[:GROWTH_STEPS]
            seconds[area].append(run.time_steps(parts).step_s / sum(len(part.rows) for part in parts))
    for area in AREAS[1:]:
        ratio = statistics.median(large / small for large, small in zip(seconds[area], seconds[1], strict=True))
        add(rows, f"frozen step, by the bin: {area} times the slide ÷ 1, batch {PAPER_BATCH}", ratio, 1.1)


if __name__ == "__main__":
    main()

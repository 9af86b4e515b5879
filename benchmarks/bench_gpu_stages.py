"""Stages one and two on one device against the encoder alone, memory with the gradient cache, and torch.compile.

In: a `Scale`. Out: rows of `stage-one`, `stage-two` and `compile`; see `bench_gpu.py`. Weights are drawn from a seed.
"""

import os
import statistics
import tempfile
import time
from collections import Counter, defaultdict
from contextlib import AbstractContextManager, nullcontext
from functools import partialmethod
from pathlib import Path
from unittest.mock import patch

import torch
from bench_extract import decode_alone
from bench_gpu_rows import Budget, PartRows, Scale, finish
from bench_train import encoder_alone
from bench_train_memory import peak_above_start
from bench_train_run import TrainingRun
from bench_train_slide import SlideSize, make_slide
from torch import nn

from extract.config import EmbeddingConfig, GeometryConfig, RunConfig
from extract.levels import Level
from extract.pipeline import encode_batch_size, lay_slide, own_square, run, workbench
from extract.samples import read_samples
from extract.synthetic.config import SynthConfig
from extract.synthetic.dataset import synthesise
from magnet_core.backbones.encoder import Encoder
from magnet_core.device import autocast
from magnet_core.slides import ScaledSlide, open_slide
from magnet_core.units import BIN_PATCH_UM, patch_px
from train.data.slide import Slide

STAGE_ONE_GOAL, STEP_GOAL = 1.10, 1.15  # those of `bench_extract.py` and `bench_train.py`
MEMORY_GOAL_GB = 48
MOST_WORKERS = 16  # threads that decode
GB = 1e9


def stage_one(scale: Scale, rows: PartRows, budget: Budget) -> None:
    """`extract run` over synthetic slides beside its encoder on patches that lie on the device, and beside decoding."""
    with tempfile.TemporaryDirectory() as folder:
        synth = SynthConfig(slides=scale.slides, size_mm=scale.size_mm, seed=1)
        samples = synthesise(Path(folder, "data"), synth)
        for number, backbone in enumerate(scale.backbones, start=1):
            config = RunConfig(
                samples=samples,
                store=Path(folder, f"store{number}"),
                geometry=GeometryConfig(targets=(8,), bins=scale.bins, spots=scale.spots),
                embedding=EmbeddingConfig(backbone=backbone, weights="random", precision="bf16"),
                device=scale.device,
                workers=min(os.cpu_count() or 1, MOST_WORKERS),
            )
            extracted(config, scale, rows, budget, share=number / len(scale.backbones))


def extracted(config: RunConfig, scale: Scale, rows: PartRows, budget: Budget, *, share: float) -> None:
    """Rows of one backbone; start-up and the building of the encoder are in none of the times."""
    backbone = config.embedding.backbone
    over_encoder, over_limits, rates = [], [], []
    alone: dict[int, list[float]] = {}  # patches a second of the encoder alone, by their side
    for repeat in budget.repeats(scale.repeats, share=share):
        config = config.changed(store=config.store.with_name(f"{config.store.name}-{repeat}"))
        encoder = workbench(config, time.monotonic).encoder  # which `run` finds built
        decode_s = 0.0
        encoder_s: dict[int, float] = defaultdict(float)
        patches: Counter[int] = Counter()
        for sample in read_samples(config.samples):
            with open_slide(sample.image) as slide:
                levels, _, resolution = lay_slide(sample, slide, config)
                decode_s += decode_alone(ScaledSlide(slide, resolution.mpp), levels) / config.workers
            for level in levels:
                encoder_s[patch_px(level.patch_um)] += seconds_of_encoder(encoder, level, config)
                patches[patch_px(level.patch_um)] += len(level)
        started = time.perf_counter()
        summary = run(config)
        seconds = time.perf_counter() - started
        if summary.failed:
            raise SystemExit(f"extract run failed: {summary.failed}")
        over_encoder.append(seconds / sum(encoder_s.values()))
        over_limits.append(seconds / max(sum(encoder_s.values()), decode_s))
        rates.append(summary.patches / seconds)
        for side, of_side in encoder_s.items():
            alone.setdefault(side, []).append(patches[side] / of_side)
    for side, of_side in alone.items():
        rows.rate("encoder alone, bf16", statistics.median(of_side), "patches", backbone=backbone, patch_px=side)
    more = {"patches_per_s": round(statistics.median(rates), 2), "workers": config.workers}
    rows.compare(
        f"extract run ÷ encoder alone, {backbone}, bf16", statistics.median(over_encoder), STAGE_ONE_GOAL, **more
    )
    what = f"extract run ÷ max(decode once on all workers, encoder alone), {backbone}, bf16"
    rows.compare(what, statistics.median(over_limits), STAGE_ONE_GOAL, workers=config.workers)


def seconds_of_encoder(encoder: Encoder, level: Level, config: RunConfig) -> float:
    """Seconds to encode as many patches as a level has, in the same batches, from the device's own memory."""
    device, side = next(encoder.parameters()).device, patch_px(level.patch_um)
    own = own_square(level, config.embedding)
    size = min(encode_batch_size(level, config, own=own, pace=None), len(level))
    drawn = torch.randint(0, 256, (size, side, side, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    batch = drawn.to(device)
    with torch.inference_mode(), autocast(config.embedding.precision, device):
        encoder(batch, config.embedding.token_grid, own=own)  # warms up allocator and kernels
        finish(device)
        started = time.perf_counter()
        for first in range(0, len(level), size):
            encoder(batch[: len(level) - first], config.embedding.token_grid, own=own)
        finish(device)
    return time.perf_counter() - started


def stage_two(scale: Scale, rows: PartRows, budget: Budget) -> None:
    """Memory of a step with the gradient cache, then fine-tuned steps beside the encoder alone."""
    with tempfile.TemporaryDirectory() as folder:
        slides = {
            backbone: make_slide(Path(folder, f"store{number}"), backbone, SlideSize(scale.area))
            for number, backbone in enumerate(scale.backbones)
        }
        vit = scale.backbones[-1]
        memory(slides[vit], vit, scale, rows)  # first, while nothing else is on the device
        for number, (backbone, slide) in enumerate(slides.items(), start=1):
            try:
                steps(slide, backbone, scale, rows, budget, share=number / len(slides))
            except torch.OutOfMemoryError as error:
                rows.fault(f"step ÷ encoder alone, {backbone}, batch {scale.batch_size}", str(error).partition("\n")[0])


def built(slide: Slide, scale: Scale, *settings: str) -> TrainingRun:
    """A training of the fine-tuned encoder in bf16."""
    common = [f"device={scale.device}", f"optim.batch_size={scale.batch_size}", "compute.precision=bf16"]
    return TrainingRun.build(slide, [*common, *settings])


def memory(slide: Slide, backbone: str, scale: Scale, rows: PartRows) -> None:
    """All that torch holds at the peak of two steps on a GPU; on the CPU, what the process takes above the start."""
    training = built(slide, scale, f"compute.micro_batch={scale.micro_batch}")
    parts = training.parts(epoch=0)[:2]
    is_gpu = training.device.type == "cuda"

    def two_steps() -> None:
        for batch in training.batches(parts):
            training.step(batch)

    held = torch.cuda.memory_allocated(training.device) if is_gpu else 0
    peak = held + peak_above_start(two_steps, training.device)
    more = {"peak_gb": round(peak / GB, 3)}
    if is_gpu:
        more["reserved_gb"] = round(torch.cuda.max_memory_reserved(training.device) / GB, 3)
    bins = f"{len(parts[0].rows)} bins, {scale.micro_batch} at a time"
    rows.compare(
        f"peak memory with gradient cache ÷ {MEMORY_GOAL_GB} GB, {bins}, {backbone}",
        peak / GB / MEMORY_GOAL_GB,
        1.0,
        **more,
    )


def steps(slide: Slide, backbone: str, scale: Scale, rows: PartRows, budget: Budget, *, share: float) -> None:
    """Steps as the trainer takes them beside the encoder's forward, backward and optimiser alone."""
    training = built(slide, scale)
    parts = training.parts(epoch=0)[: scale.steps]
    training.time_steps(parts[:2])  # warms up allocator and kernels
    encoder_alone(training, parts[:2])
    ratios, seconds = [], []
    for _ in budget.repeats(scale.repeats, share=share):
        seconds.append(training.time_steps(parts).step_s)
        ratios.append(seconds[-1] / encoder_alone(training, parts))
    bins, side = statistics.mean(len(part.rows) for part in parts), patch_px(BIN_PATCH_UM)
    rows.rate("fine-tuned step, bf16", bins / statistics.median(seconds), "bins", backbone=backbone, patch_px=side)
    what = f"step ÷ encoder alone (forward, backward, optimiser), {backbone}, batch {scale.batch_size}, bf16"
    rows.compare(what, statistics.median(ratios), STEP_GOAL)


def compiling(scale: Scale, rows: PartRows, budget: Budget) -> None:
    """Steps with the encoder compiled beside steps without; how long the first one took is told with them."""
    for number, backbone in enumerate(scale.backbones, start=1):
        with tempfile.TemporaryDirectory() as folder, compiler(scale.backend):
            slide = make_slide(Path(folder, "store"), backbone, SlideSize(scale.area))
            try:
                compiled_steps(slide, backbone, scale, rows, budget, share=number / len(scale.backbones))
            except torch.OutOfMemoryError as error:
                rows.fault(f"step compiled ÷ not, {backbone}", str(error).partition("\n")[0])


def compiled_steps(slide: Slide, backbone: str, scale: Scale, rows: PartRows, budget: Budget, *, share: float) -> None:
    """The row of one backbone, on subgraphs of one size: another size is compiled anew."""
    trainings = {is_on: built(slide, scale, f"compute.compile={str(is_on).lower()}") for is_on in (False, True)}
    drawn = trainings[False].parts(epoch=0)
    parts = [part for part in drawn if len(part.rows) == len(drawn[0].rows)][: scale.steps]
    first_s = {is_on: training.time_steps(parts[:2]).step_s * 2 for is_on, training in trainings.items()}
    ratios = []
    for _ in budget.repeats(scale.repeats, share=share):
        seconds = {is_on: training.time_steps(parts).step_s for is_on, training in trainings.items()}
        ratios.append(seconds[True] / seconds[False])
    what = f"step compiled ÷ not, {backbone}, batch {scale.batch_size}, bf16"
    more = {"first_two_steps_s": round(first_s[True], 1), "backend": scale.backend or "inductor"}
    rows.compare(what, statistics.median(ratios), 1.0, **more)


def compiler(backend: str) -> AbstractContextManager[object]:
    """Let encoders be compiled by a backend of torch, or by its default where none is named."""
    if not backend:
        return nullcontext()
    return patch.object(Encoder, "compile", partialmethod(nn.Module.compile, backend=backend))

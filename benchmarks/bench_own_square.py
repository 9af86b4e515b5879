"""What own squares and blended contexts cost, with them ÷ without, in one run: stage one, a frozen step, bytes a bin.

Each figure is the median over pairs of measurements, taken in turn; one torch thread. Out: rows of what, ratio, goal,
holds in `results/own_square.json`.

    python benchmarks/bench_own_square.py
"""

import json
import statistics
import tempfile
from pathlib import Path

import torch
from bench_extract import LARGE, SMALL, add, real_pass
from bench_train import FROZEN, GROWTH_STEPS, PAPER_BATCH
from bench_train_run import TrainingRun
from bench_train_slide import SLIDE_ID, SlideSize, write_store

from cache.store import Store
from extract.config import EmbeddingConfig, GeometryConfig, RunConfig
from extract.levels import lay_levels
from extract.pipeline import own_square
from extract.readers import read_counts
from extract.samples import read_samples
from extract.synthetic.config import SynthConfig
from extract.synthetic.dataset import synthesise
from magnet_core.backbones.encoder import build_encoder
from magnet_core.backbones.find import find_backbone
from magnet_core.backbones.own_square import OwnSquare
from magnet_core.levels import bin_level, find_target, own_square_um
from magnet_core.units import BIN_PATCH_UM, WORKING_MPP, patch_px
from train.data.slide import open_slide_data
from train.settings.fit import DataConfig

RESULTS = Path(__file__).parent / "results" / "own_square.json"
REPEATS = 7
BATCHES = (64, PAPER_BATCH)
BACKBONES = (SMALL, LARGE, "timm:vit_large_patch16_224")


def main() -> None:
    """Measure everything and write the rows."""
    torch.set_num_threads(1)
    rows: list[dict[str, object]] = []
    for backbone in BACKBONES:
        add(rows, f"bytes a bin, its pixels included, {backbone}", bytes_of_a_bin(backbone), 1.10)
    with tempfile.TemporaryDirectory() as folder:
        samples = synthesise(Path(folder, "data"), SynthConfig(slides=1, size_mm=1.0))
        for backbone, bins, spots in ((SMALL, 3000, 200), (LARGE, 150, 10)):
            geometry = GeometryConfig(targets=(8,), bins=bins, spots=spots, context_hops=0)
            embedding = EmbeddingConfig(backbone=backbone, weights="random")
            config = RunConfig(samples=samples, geometry=geometry, embedding=embedding, workers=1)
            add(rows, f"stage one, {backbone}", stage_one(config), 1.10)
        write_store(Path(folder, "store"), LARGE, SlideSize(pixels=False))
        for batch_size in BATCHES:
            ratio = frozen_step(Path(folder, "store"), batch_size)
            add(rows, f"frozen step, {LARGE}, batch {batch_size}", ratio, 1.3)
    RESULTS.write_text(json.dumps(rows, indent=2, ensure_ascii=False) + "\n")


def bytes_of_a_bin(backbone: str) -> float:
    """Bytes of a bin's pixels and features with its own square over those without."""
    encoder = build_encoder(find_backbone(backbone), "random")
    side_um = own_square_um(bin_level(8), patch_um=BIN_PATCH_UM)
    assert side_um is not None
    square = OwnSquare(side_um / BIN_PATCH_UM, EmbeddingConfig().own)
    before = patch_px(BIN_PATCH_UM) ** 2 * 3 + 2 * encoder.width
    return (before + 2 * encoder.own_width(square)) / before


def stage_one(config: RunConfig) -> float:
    """Seconds of the real pass over a slide."""
    sample = read_samples(config.samples)[0]
    encoder = build_encoder(find_backbone(config.embedding.backbone), "random")
    levels = lay_levels(read_counts(sample), WORKING_MPP, config.geometry, slide_id="S1")
    assert any(own_square(level, config.embedding) for level in levels)
    without = config.changed(embedding={"own": 0})
    ratios = [
        real_pass(encoder, levels, sample, config) / real_pass(encoder, levels, sample, without) for _ in range(REPEATS)
    ]
    return statistics.median(ratios)


def frozen_step(store: Path, batch_size: int) -> float:
    """Seconds of a step on cached features."""
    settings = [f"optim.batch_size={batch_size}", FROZEN]
    data = DataConfig(store=store, backbone=LARGE)
    before = data.changed(own=False, contexts="paired")
    runs = [
        TrainingRun.build(open_slide_data(Store(store), SLIDE_ID, find_target(8), each), settings)
        for each in (data, before)
    ]
    ratios = []
    for repeat in range(REPEATS):
        now, then = (run.time_steps(run.parts(repeat)[:GROWTH_STEPS]).step_s for run in runs)
        ratios.append(now / then)
    return statistics.median(ratios[1:])  # the first warms up


if __name__ == "__main__":
    main()

"""Stage one against the limits it cannot beat, all in one run: prints rows, writes benchmarks/results/extract.json.

    what    what is compared with what
    ratio   ours ÷ the limit
    goal    the most it may be
    holds   whether it does

One torch thread encodes and one thread decodes, so that on two cores both limits are those of a core of their own.

    python benchmarks/bench_extract.py
"""

import json
import math
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from unittest.mock import patch

import numpy as np
import tifffile
import torch
from bench_gather import SHAPES, gather_ratio
from bench_knn import knn_ratio, layouts

from cache.writer import ArrayWriter
from extract.background import BackgroundWriter
from extract.config import EmbeddingConfig, GeometryConfig, RunConfig
from extract.levels import Level, lay_levels
from extract.pipeline import open_sinks, pour
from extract.readers import read_counts
from extract.samples import read_samples
from extract.stream import TILE_PX, PatchRequest, stream_patches
from extract.synthetic.config import SynthConfig
from extract.synthetic.dataset import synthesise
from magnet_core.backbones.encoder import Encoder, build_encoder
from magnet_core.backbones.find import find_backbone
from magnet_core.records import Sample
from magnet_core.slides import ScaledSlide, open_slide
from magnet_core.slides.tiff_level import TiffLevel
from magnet_core.units import WORKING_MPP, patch_px

RESULTS = Path(__file__).parent / "results" / "extract.json"
SIZES_MM = (0.5, 1.0, 2.0)  # 1, 4 and 16 times the area
SMALL, LARGE = "timm:test_mambaout", "resnet50"
REPEATS = 5  # measurements of the real pass, each beside its limits
MASK_PX = 8  # working pixels along a pixel of the mask that counts what patches cover


def main() -> None:
    """Measure everything and write the rows."""
    torch.set_num_threads(1)
    rows: list[dict[str, object]] = []
    with tempfile.TemporaryDirectory() as folder:
        samples = {size: synthesise(Path(folder, f"{size}"), SynthConfig(slides=1, size_mm=size)) for size in SIZES_MM}
        for backbone, bins, spots in ((SMALL, 3000, 200), (LARGE, 150, 10)):
            config = RunConfig(
                samples=samples[1.0],
                geometry=GeometryConfig(targets=(8,), bins=bins, spots=spots, context_hops=0),
                embedding=EmbeddingConfig(backbone=backbone, weights="random"),
                workers=1,
            )
            add(rows, f"end to end ÷ max(decode once, encoder alone), {backbone}", end_to_end(config), 1.10)
        read, decoded = pixels_read(samples[2.0])
        add(rows, "pixels read ÷ pixels under patches, three levels", read, 1.15)
        add(rows, "tiles of the file decoded ÷ tiles under patches", decoded, 1.0)
        add(rows, "store gather ÷ memmap gather, 256 rows of tokens", gather(folder), 1.25)
        for layout, points in layouts(np.random.default_rng(0)).items():
            add(rows, f"kNN ÷ cKDTree, 500k points, {layout}", knn_ratio(points, threads=1)[0], 2.0)
        growth(rows, samples)
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps(rows, indent=2, ensure_ascii=False) + "\n")
    print(f"written: {RESULTS}")


def add(rows: list[dict[str, object]], what: str, ratio: float, goal: float) -> None:
    """Print a row and keep it."""
    rows.append({"what": what, "ratio": round(ratio, 3), "goal": goal, "holds": ratio <= goal})
    print(f"{what}: {ratio:.3f} (goal {goal}, holds: {ratio <= goal})", flush=True)


def end_to_end(config: RunConfig) -> float:
    """Seconds of the real pass over the slower of its two parts, each measured alone on the same patches.

    The median of alternating measurements: the machine's speed changes under other people's work.
    """
    sample = read_samples(config.samples)[0]
    encoder = build_encoder(find_backbone(config.embedding.backbone), "random")
    with open_slide(sample.image) as slide:
        levels = lay_levels(read_counts(sample), WORKING_MPP, config.geometry, slide_id="S1")
    ratios = []
    for _ in range(REPEATS):
        with open_slide(sample.image) as slide:  # opened anew: nothing decoded is kept
            decoding_s = decode_alone(ScaledSlide(slide, WORKING_MPP), levels)
        encoding_s = encode_alone(encoder, levels, config)
        ratios.append(real_pass(encoder, levels, sample, config) / max(encoding_s, decoding_s))
    return statistics.median(ratios)


def real_pass(encoder: Encoder, levels: list[Level], sample: Sample, config: RunConfig) -> float:
    """Seconds to cut, encode and store all patches of a slide."""
    with open_slide(sample.image) as slide, tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        with (
            ArrayWriter(Path(folder, "geometry.lmdb"), {}) as geometry,
            ArrayWriter(Path(folder, "features.lmdb"), {}) as features,
            BackgroundWriter() as background,
        ):
            sinks = open_sinks(levels, encoder, config, geometry=geometry, features=features, background=background)
            pour(ScaledSlide(slide, WORKING_MPP), levels, sinks, workers=1, title="end to end")
            background.flush()
            geometry.commit()
            features.commit()
        return time.perf_counter() - start


def encode_alone(encoder: Encoder, levels: list[Level], config: RunConfig) -> float:
    """Seconds to encode as many patches of each level, in the same batches, from memory."""
    rng = np.random.default_rng(0)
    total = 0.0
    for level in levels:
        side = patch_px(level.patch_um)
        batch_size = max(1, round(config.batch_size * (224 / side) ** 2))
        batch = torch.from_numpy(rng.integers(0, 256, (min(batch_size, len(level)), side, side, 3), np.uint8))
        start = time.perf_counter()
        with torch.inference_mode():
            for first in range(0, len(level), len(batch)):
                encoder(batch[: len(level) - first], config.embedding.token_grid)
        total += time.perf_counter() - start
    return total


def decode_alone(slide: ScaledSlide, levels: list[Level]) -> float:
    """Seconds to read, once each, the tiles that the levels' patches touch."""
    tiles = sorted(tiles_under(levels), key=lambda tile: tile[::-1])
    start = time.perf_counter()
    for column, row in tiles:
        slide.read(column * TILE_PX, row * TILE_PX, TILE_PX, TILE_PX)
    return time.perf_counter() - start


def requests_of(levels: list[Level]) -> dict[str, PatchRequest]:
    """All patches of all levels."""
    return {
        level.name: PatchRequest(level.centres_um, level.patch_um, np.ones(len(level), dtype=bool)) for level in levels
    }


def tiles_under(levels: list[Level]) -> set[tuple[int, int]]:
    """Columns and rows of the tiles that hold a pixel of a patch."""
    tiles: set[tuple[int, int]] = set()
    for request in requests_of(levels).values():
        for dx in (0, request.side_px - 1):
            for dy in (0, request.side_px - 1):
                tiles |= set(map(tuple, ((request.corners_px() + (dx, dy)) // TILE_PX).tolist()))
    return tiles


def pixels_read(samples: Path) -> tuple[float, float]:
    """Pixels read over pixels that lie under any patch, and tiles the file decodes over tiles that hold such a pixel.

    Every bin of the slide is taken. The first depends on how finely the slide is read, the second on nothing being
    decoded twice.
    """
    sample = read_samples(samples)[0]
    config = GeometryConfig(targets=(8,), sampling="all")
    read_px, decoded = 0, 0

    class Counting(ScaledSlide):
        def read(self, x: int, y: int, w: int, h: int) -> np.ndarray:
            nonlocal read_px
            inside = [
                max(0, min(at + side, end) - max(at, 0))
                for at, side, end in zip((x, y), (w, h), self.size_px, strict=True)
            ]
            read_px += inside[0] * inside[1]
            return super().read(x, y, w, h)

    decode = TiffLevel._decode

    def counted(level: TiffLevel, page: int, index: int) -> np.ndarray:
        nonlocal decoded
        decoded += 1
        return decode(level, page, index)

    with open_slide(sample.image) as slide, patch.object(TiffLevel, "_decode", counted):
        levels = lay_levels(read_counts(sample), WORKING_MPP, config, slide_id="S1")
        counting = Counting(slide, WORKING_MPP)
        for _ in stream_patches(counting, requests_of(levels), workers=1):
            pass
        width, height = counting.size_px
    with tifffile.TiffFile(sample.image) as tif:
        tile_px = tif.pages.first.tilewidth
    covered = np.zeros((math.ceil(height / MASK_PX), math.ceil(width / MASK_PX)), dtype=bool)
    for request in requests_of(levels).values():
        for x, y in np.maximum(request.corners_px(), 0) // MASK_PX:
            covered[y : y + request.side_px // MASK_PX, x : x + request.side_px // MASK_PX] = True
    tile = tile_px // MASK_PX
    rows, columns = np.nonzero(covered)
    num_tiles = len(np.unique(rows // tile * covered.shape[1] + columns // tile))
    return read_px / (int(covered.sum()) * MASK_PX**2), decoded / num_tiles


def gather(folder: str) -> float:
    """Gather of the largest rows that stage two gathers at each step."""
    shape, dtype = SHAPES["tokens (N,16,2048) float16"]
    return gather_ratio(Path(folder), shape, dtype=dtype)


def growth(rows: list[dict[str, object]], samples: dict[float, Path]) -> None:
    """Time and peak memory of whole runs, each in a process of its own, over 1, 4 and 16 times the area."""
    seconds, memory = [], []
    for size, sheet in samples.items():
        with tempfile.TemporaryDirectory() as store:
            options = ["--samples", str(sheet), "--store", store, "--backbone", SMALL, "--weights", "random"]
            limits = ["--targets", "8", "--sampling", "all", "--workers", "1"]
            start = time.perf_counter()
            program = "from extract.__main__ import main; main()"
            with subprocess.Popen(
                [sys.executable, "-c", program, "run", *options, *limits],
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            ) as process:
                _, status, usage = os.wait4(process.pid, 0)
                process.returncode = os.waitstatus_to_exitcode(status)
            if process.returncode:
                raise SystemExit(f"extract run failed on the slide of {size} mm")
            seconds.append(time.perf_counter() - start)
            memory.append(usage.ru_maxrss / 2**20)
    print(f"seconds: {[round(s, 1) for s in seconds]}, peak GiB: {[round(m, 2) for m in memory]}")
    slope = math.log(seconds[-1] / seconds[-2]) / math.log(4)
    add(rows, "time: log-log slope from 4 to 16 times the area", slope, 1.05)
    add(rows, "peak memory: 16 times the area ÷ 1", memory[-1] / memory[0], 1.5)


if __name__ == "__main__":
    main()

"""A slide's every bin from its image, against the limits it cannot beat: rows, and `benchmarks/results/predict.json`.

In: numbers of bins, a backbone. For each number an image of so many bins of stained noise, tiled and pyramidal, and
`train predict --image` of a run with drawn weights, in a process of its own. Out, for each:

    rows a second, seconds of the command and of its processors
    peak memory   of what the process itself holds (Linux: RssAnon); pages of mapped files are the system's to take back
    returned      bytes of the predictions, which the process holds at the end
    peak disk     beside the output, and bytes of the output

    processor seconds of the command against those of decoding and encoding alone, which other work does not stretch

and as ratios with their goals: the slope of time, the growth of memory but for what is returned, and the command
against decoding each tile once, and encoding each patch once, whichever takes longer.

    PYTHONPATH=. python benchmarks/bench_predict.py --bins 10000,100000,600000
"""

import argparse
import itertools
import json
import math
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import tifffile
import torch
from bench_extract import decode_alone

from extract.config import EmbeddingConfig, GeometryConfig, RunConfig
from extract.hne_only import bins_in_tissue
from extract.levels import Level, lay_levels
from extract.pipeline import embedding_settings, encode_batch_size, features_header, own_square
from extract.synthetic.image import LEVEL_STEP, TILE_PX, reduce_picture
from magnet_core.backbones.encoder import build_encoder
from magnet_core.backbones.find import find_backbone
from magnet_core.levels import bin_level
from magnet_core.model import MagNet
from magnet_core.records import Genes
from magnet_core.slides import ScaledSlide, open_slide
from magnet_core.units import WORKING_MPP, patch_px
from train.learning.stage_one import StageOne
from train.learning.trained_run import TrainedRun, save_run
from train.model.predictor import Predictor
from train.settings.fit import load_config

RESULTS = Path(__file__).parent / "results" / "predict.json"
SMALL = "timm:test_mambaout"
NUM_GENES = 250
BIN_PX = round(8 / WORKING_MPP)
MEMORY_GIB, GIB = 4.0, 2**30
POLL_SECONDS = 0.1
ENCODED_AT_MOST = 20_000  # patches of a level that are timed; the rest takes as long for each


def main() -> None:
    """Measure every size and write the rows."""
    parser = argparse.ArgumentParser(description="Every bin of a slide from its image, against its limits.")
    parser.add_argument("--bins", default="10000,100000,600000", help="numbers of bins, the smallest first")
    parser.add_argument("--backbone", default=SMALL)
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args()
    torch.set_num_threads(1)
    rows: list[dict[str, object]] = []
    measured: list[dict[str, float]] = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        run = write_run(folder / "run", options.backbone)
        for bins in map(int, options.bins.split(",")):
            measured.append(measure(bins, run, folder, options.backbone))
            rows.append({"what": f"predict {measured[-1]['bins']:,.0f} bins", **measured[-1]})
            print(json.dumps(rows[-1], ensure_ascii=False), flush=True)
    if len(measured) > 1:
        small, large = measured[0], measured[-1]
        area = math.log(large["bins"] / small["bins"])
        add(rows, "time: log-log slope of the command", math.log(large["seconds"] / small["seconds"]) / area, 1.05)
        held = [size["peak_gib"] - size["returned_gib"] for size in (small, large)]
        add(rows, "peak memory but for what is returned, largest ÷ smallest", held[1] / held[0], 1.5)
    add(rows, f"peak memory, GiB, of {measured[-1]['bins']:,.0f} bins", measured[-1]["peak_gib"], MEMORY_GIB)
    add(rows, "the command ÷ max(decoding once, encoding once)", measured[-1]["over_limit"], 1.15)
    options.out.parent.mkdir(exist_ok=True)
    options.out.write_text(json.dumps(rows, indent=2, ensure_ascii=False) + "\n")
    print(f"written: {options.out}")


def add(rows: list[dict[str, object]], what: str, ratio: float, goal: float) -> None:
    """Print a row and keep it."""
    rows.append({"what": what, "ratio": round(ratio, 3), "goal": goal, "holds": ratio <= goal})
    print(f"{what}: {ratio:.3f} (goal {goal}, holds: {ratio <= goal})", flush=True)


def write_run(folder: Path, backbone: str) -> Path:
    """Write a run with drawn weights on cached features of a backbone whose weights are drawn too."""
    folder.mkdir()
    settings = RunConfig(embedding=EmbeddingConfig(backbone=backbone, weights="random"))
    encoder = build_encoder(find_backbone(backbone), "random")
    header = features_header(embedding_settings(settings, encoder), {}, settings)
    config = load_config(None, [f"data.backbone={backbone}", f"data.panel={NUM_GENES}", "encoder.mode=frozen"])
    fine = Level(bin_level(8), settings.geometry.bin_patch_um, *(np.empty(0) for _ in range(3)), pixels=True)
    square = own_square(fine, settings.embedding)
    assert square is not None
    contexts = {"spot": encoder.width, "region": encoder.width}
    torch.manual_seed(0)
    model = MagNet(
        config.model, fine_dim=encoder.width + encoder.own_width(square), context_dims=contexts, num_genes=NUM_GENES
    )
    names = np.array([f"gene{number}" for number in range(NUM_GENES)])
    made = StageOne.of({}, header)
    run = TrainedRun(
        config, Genes(names, names), Predictor(None, model, config.compute), header["settings_digest"], made
    )
    save_run(folder, run, extra={})
    return folder


def measure(bins: int, run: Path, folder: Path, backbone: str) -> dict[str, float]:
    """Measure one size, whose image is a square; its number of bins is the next square number below."""
    along = math.isqrt(bins)
    image, tissue, out = folder / f"{along}.tif", folder / f"{along}.geojson", folder / f"out-{along}"
    write_image(image, along * BIN_PX)
    side = along * BIN_PX
    tissue.write_text(
        json.dumps({"type": "Polygon", "coordinates": [[[0, 0], [side, 0], [side, side], [0, side], [0, 0]]]})
    )
    out.mkdir()
    options = ["--image", image, "--mpp", WORKING_MPP, "--tissue", tissue, "--out", out / "x.h5ad", "--workers", 1]
    figures = watch(["predict", str(run), *map(str, options), "--device", "cpu"], out)
    limits = seconds_of_limits(image, tissue, backbone)
    image.unlink()
    written = (out / "x.h5ad").stat().st_size
    return {
        "bins": along**2,
        "rows_a_second": round(along**2 / figures["seconds"], 1),
        **{name: round(value, 3) for name, value in figures.items()},
        "returned_gib": round(along**2 * NUM_GENES * 4 / GIB, 3),
        "output_gib": round(written / GIB, 3),
        **{name: round(value, 1) for name, value in limits.items()},
        "over_limit": round(figures["seconds"] / max(limits["decode_seconds"], limits["encode_seconds"]), 3),
        "processor_over_both": round(figures["processor_seconds"] / limits["both_processor_seconds"], 3),
    }


def watch(arguments: list[str], out: Path) -> dict[str, float]:
    """Run `train` with these arguments in a process of its own, and return its time, peak memory and peak disk."""
    program = "import torch; torch.set_num_threads(1); from train.__main__ import main; main()"
    peak = disk = 0
    start = time.perf_counter()
    command = [sys.executable, "-c", program, *arguments]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    with subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        while True:
            pid, status, usage = os.wait4(process.pid, os.WNOHANG)
            if pid:
                break
            peak, disk = max(peak, held_bytes(process.pid)), max(disk, bytes_below(out))
            time.sleep(POLL_SECONDS)
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"train {' '.join(arguments)} failed")
    seconds = time.perf_counter() - start
    processors = usage.ru_utime + usage.ru_stime
    return {
        "seconds": seconds,
        "processor_seconds": processors,
        "peak_gib": peak / GIB,
        "peak_disk_gib": disk / GIB,
    }


def held_bytes(pid: int) -> int:
    """Bytes of a process that are in memory and no file's."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except (FileNotFoundError, ProcessLookupError):
        return 0
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("RssAnon")), 0)


def bytes_below(folder: Path) -> int:
    """Bytes that the files of a folder take on the disk."""
    total = 0
    for path in folder.rglob("*"):
        try:
            total += path.stat().st_blocks * 512
        except FileNotFoundError:  # renamed meanwhile
            continue
    return total


def seconds_of_limits(image: Path, tissue: Path, backbone: str) -> dict[str, float]:
    """Seconds to decode each tile once, and to encode each patch once, one thread each."""
    config = RunConfig(embedding=EmbeddingConfig(backbone=backbone, weights="random"))
    encoder = build_encoder(find_backbone(backbone), "random")
    with open_slide(image) as slide:
        counts = bins_in_tissue(slide, WORKING_MPP, slide_id="x", tissue=tissue)
        levels = lay_levels(counts, WORKING_MPP, GeometryConfig(targets=(8,), sampling="all"), slide_id="x")
        began = time.process_time()
        decoding = decode_alone(ScaledSlide(slide, WORKING_MPP), levels)
        processor = time.process_time() - began
    rng = np.random.default_rng(0)
    encoding = 0.0
    for level in levels:
        side, own = patch_px(level.patch_um), own_square(level, config.embedding)
        size = min(encode_batch_size(level, config, own=own, pace=None), len(level))
        batch = torch.from_numpy(rng.integers(0, 256, (size, side, side, 3), np.uint8))
        timed = min(len(level), ENCODED_AT_MOST)
        start, began = time.perf_counter(), time.process_time()
        with torch.inference_mode():
            for first in range(0, timed, size):
                encoder(batch[: timed - first], config.embedding.token_grid, own=own)
        encoding += (time.perf_counter() - start) * len(level) / timed
        processor += (time.process_time() - began) * len(level) / timed
    return {"decode_seconds": decoding, "encode_seconds": encoding, "both_processor_seconds": processor}


def write_image(path: Path, side_px: int) -> None:
    """Write a square of stained noise as scanners write it, tile by tile, with reduced levels."""
    rng = np.random.default_rng(0)
    stain = np.array([215, 150, 190], np.float32)
    tile = np.clip(stain + 25 * rng.standard_normal((TILE_PX, TILE_PX, 3), np.float32), 0, 255).astype(np.uint8)
    with tifffile.TiffWriter(path, bigtiff=True) as tiff:
        for level in itertools.count():
            side = side_px // LEVEL_STEP**level
            if level and side < TILE_PX:
                break
            tiff.write(
                repeated(tile, (-(-side // TILE_PX)) ** 2),
                shape=(side, side, 3),
                dtype=np.uint8,
                tile=(TILE_PX, TILE_PX),
                photometric="rgb",
                compression="jpeg",
                subfiletype=int(level > 0),
                metadata=None,
            )
            tile = np.tile(reduce_picture(tile), (LEVEL_STEP, LEVEL_STEP, 1))


def repeated(tile: np.ndarray, times: int) -> Iterator[np.ndarray]:
    """Yield one tile so many times."""
    return itertools.repeat(tile, times)


if __name__ == "__main__":
    main()

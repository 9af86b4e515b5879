"""How fast one processor core encodes and learns: the rates that `extract plan` and `train plan` start from.

Prints rows, and writes benchmarks/results/rates.json:

    part        stage-one: patches encoded; fine-tuned, frozen: bins learnt from, in steps as the trainer takes them;
                laying: bins of 8 µm in tissue, with bins of 16 µm, read from Space Ranger's folder and laid as levels
    backbone    of random weights; patch_px is the side of its patches
    rate_per_s  patches or bins (`unit`) a second of processor time, the best of a few: other work counts little then
    device      what it was measured on

`magnet_core/forecast/rates.py` ships the same rows; a test compares the two.

    PYTHONPATH=. python benchmarks/bench_rates.py
"""

import argparse
import itertools
import json
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from unittest.mock import patch

import bench_readers
import numpy as np
import torch
from bench_train_run import TrainingRun
from bench_train_slide import SlideSize, make_slide

from extract.config import GeometryConfig
from extract.levels import lay_levels
from extract.readers import read_counts
from magnet_core.backbones.encoder import build_encoder
from magnet_core.backbones.find import find_backbone
from magnet_core.records import Sample
from magnet_core.units import BIN_PATCH_UM, REGION_PATCH_UM, SPOT_PATCH_UM, WORKING_MPP, patch_px

Row = dict[str, object]

RESULTS = Path(__file__).parent / "results" / "rates.json"
BACKBONE = "resnet50"
DEVICE = "one core of an x86-64 processor"
REPEATS = 3
EIGHTH = {8: (296, 75_000, 290), 16: (148, 18_750, 700)}  # of `bench_readers.SIZES`
CHUNK = 10_000
PATCHES = {BIN_PATCH_UM: 64, SPOT_PATCH_UM: 16, REGION_PATCH_UM: 4}  # encoded together: as many pixels of each, or so


def main() -> None:
    """Measure the parts that are named, all by default; rows of the others stay."""
    parser = argparse.ArgumentParser(description="How fast one processor core encodes and learns.")
    parser.add_argument("--parts", nargs="+", choices=MEASURES, default=list(MEASURES))
    chosen = parser.parse_args().parts
    torch.set_num_threads(1)
    before = json.loads(RESULTS.read_text()) if RESULTS.exists() else []
    rows = {part: [each for each in before if each["part"] == part] for part in MEASURES}
    for part in chosen:
        rows[part] = MEASURES[part]()
        RESULTS.write_text(json.dumps([*itertools.chain(*rows.values())], indent=2, ensure_ascii=False) + "\n")
    print(f"written: {RESULTS}")


def encoding() -> list[Row]:
    """Patches of three sizes, from memory."""
    encoder, rows = build_encoder(find_backbone(BACKBONE), "random"), []
    for patch_um, count in PATCHES.items():
        side = patch_px(patch_um)
        batch = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (count, side, side, 3), np.uint8))
        with torch.inference_mode():
            rows.append(row("stage-one", count / fastest(partial(encoder, batch)), "patches", side))
    return rows


def learning(part: str, *settings: str, steps: int) -> list[Row]:
    """Steps on bins of a slide of the paper's size."""
    with tempfile.TemporaryDirectory() as folder:
        run = TrainingRun.build(make_slide(Path(folder), BACKBONE, SlideSize()), settings)
        parts = run.parts(epoch=0)[:steps]
        bins = sum(len(each.rows) for each in parts)
        return [row(part, bins / fastest(partial(run.time_steps, parts)), "bins", patch_px(BIN_PATCH_UM))]


def laying() -> list[Row]:
    """Counts of an eighth of a slide, from a folder to levels with windows of bins."""
    with tempfile.TemporaryDirectory() as name, patch.dict(bench_readers.SIZES, EIGHTH):
        for bin_um in EIGHTH:
            with patch.object(bench_readers, "CHUNK", CHUNK):  # no larger than what is written
                bench_readers.write_size(Path(name), bin_um)
        sample = Sample("S1", Path(name), counts=Path(name))

        def lay() -> None:
            lay_levels(read_counts(sample), WORKING_MPP, GeometryConfig(), slide_id="S1")

        return [row("laying", EIGHTH[8][1] / fastest(lay), "bins")]


def row(part: str, rate_per_s: float, unit: str, side_px: int | None = None) -> Row:
    """Print a row and return it."""
    rate = float(f"{rate_per_s:.4g}")
    of_what = {} if side_px is None else {"backbone": BACKBONE, "patch_px": side_px}
    made = {"part": part, **of_what, "rate_per_s": rate, "unit": unit, "device": DEVICE}
    print(json.dumps(made), flush=True)
    return made


def fastest(call: Callable[[], object]) -> float:
    """Seconds of processor time that a call takes, the least of a few after one that warms up."""
    call()
    seconds = []
    for _ in range(REPEATS):
        started = time.process_time()
        call()
        seconds.append(time.process_time() - started)
    return min(seconds)


MEASURES: dict[str, Callable[[], list[Row]]] = {
    "stage-one": encoding,
    "laying": laying,
    "stage-two": partial(learning, "stage-two", "optim.batch_size=32", steps=2),
    "frozen": partial(learning, "frozen", "optim.batch_size=256", "encoder.mode=frozen", steps=12),
}

if __name__ == "__main__":
    main()

"""Peak memory of reading a whole Visium HD slide, and of carrying its counts into a store and out of it again.

    what    what a process of its own does
    ratio   its peak memory in GiB ÷ 4
    goal    the most that may be
    holds   whether it does

Two synthetic Space Ranger folders: 600,000 bins of 8 µm (and 150,000 of 16 µm) × 18,000 genes, and 9.6 million squares
of 2 µm. Prints rows, writes benchmarks/results/readers.json. Needs 4 GB in the temporary folder, and some minutes.

    python benchmarks/bench_readers.py
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import h5py
import numpy as np
import polars as pl

RESULTS = Path(__file__).parent / "results" / "readers.json"
LIMIT_GIB = 4.0
GENES = 18_000
MPP = 0.25
CHUNK = 80_000  # values in a chunk of the h5, as 10x writes it
BLOCK_BARCODES = 50_000  # made and written at a time

# side of the square of bins, bins in tissue, counts drawn in each (some fall together: fewer remain)
SIZES = {8: (838, 600_000, 290), 16: (419, 150_000, 700), 2: (3_352, 9_600_000, 11)}

IMPORTS = """
import tempfile
from pathlib import Path
from cache.reader import ArrayFile
from cache.store import Store
from cache.writer import ArrayWriter
from extract.config import GeometryConfig
from extract.geometry import write_levels
from extract.levels import lay_levels
from extract.readers import read_counts
from magnet_core.settings.normalise import NormaliseConfig
from magnet_core.panel import choose_panel
from magnet_core.levels import find_target
from magnet_core.records import Genes, Sample
from train.data.slide import LevelData, Slide
"""
READ = """
counts = read_counts(Sample('S1', Path({folder!r}), counts=Path({folder!r})))
"""
WRITE = """
levels = lay_levels(counts, {mpp}, GeometryConfig(sampling={sampling!r}), slide_id='S1')
genes = counts.genes
del counts
with ArrayWriter({store!r}, {{}}) as writer:
    write_levels(writer, levels, genes)
    del levels
    writer.commit()
"""
LABELS = """
geometry = ArrayFile({store!r})
target = find_target(8)
level = {{name: LevelData(name, geometry, geometry, standardise=False) for name in target.levels}}
genes = Genes(geometry.read('genes/id'), geometry.read('genes/name'))
slide = Slide('S1', 'P1', target, genes, level[target.fine], {{name: level[name] for name in target.contexts}}, {{}})
panel = choose_panel({{'S1': slide.mean_counts()}}, {{'S1': genes}}, size=250)
slide.labels(panel, NormaliseConfig())
"""


def main() -> None:
    """Measure everything and write the rows."""
    rows: list[dict[str, object]] = []
    print(f"imports alone: {peak_gib(''):.2f} GiB", flush=True)
    with tempfile.TemporaryDirectory() as scratch:
        bins, squares, store = Path(scratch, "bins"), Path(scratch, "squares"), str(Path(scratch, "geometry.lmdb"))
        stored = sum(write_size(bins, bin_um) for bin_um in (8, 16)), write_size(squares, 2)
        print(f"non-zero counts: {stored[0]:,} of bins, {stored[1]:,} of squares", flush=True)
        read_bins, read_squares = (READ.format(folder=str(folder)) for folder in (bins, squares))
        write = {sampling: WRITE.format(mpp=MPP, sampling=sampling, store=store) for sampling in ("windows", "all")}
        add(rows, "read 8 and 16 µm bins", read_bins)
        add(rows, "read 2 µm squares as 8 and 16 µm bins", read_squares)
        add(rows, "bins from folder to geometry file, 6,000 of each size", read_bins + write["windows"])
        Path(store).unlink()
        add(rows, "squares from folder to geometry file, all bins", read_squares + write["all"])
        Path(store).unlink()
        add(rows, "bins from folder to geometry file, all bins", read_bins + write["all"])
        add(rows, "panel and labels of all 8 µm bins from the geometry file", LABELS.format(store=store))
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps(rows, indent=2, ensure_ascii=False) + "\n")
    print(f"written: {RESULTS}")


def add(rows: list[dict[str, object]], what: str, program: str) -> None:
    """Run a program, print its row and keep it."""
    start = time.perf_counter()
    peak = peak_gib(program)
    ratio = peak / LIMIT_GIB
    rows.append({"what": f"{what}: peak GiB ÷ 4", "ratio": round(ratio, 3), "goal": 1.0, "holds": ratio <= 1})
    seconds = time.perf_counter() - start
    print(f"{what}: {peak:.2f} GiB, {ratio:.3f} (goal 1, holds: {ratio <= 1}), {seconds:.0f} s", flush=True)


def peak_gib(program: str) -> float:
    """Peak resident memory of a process that imports what all programs need, then runs one of them."""
    with subprocess.Popen([sys.executable, "-c", IMPORTS + program]) as process:
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"failed: {program}")
    return usage.ru_maxrss / 2**20


def write_size(outs: Path, bin_um: int) -> int:
    """Write the folder of one bin size, block by block; returns how many non-zero counts it has."""
    side, in_tissue, drawn = SIZES[bin_um]
    folder = outs / "binned_outputs" / f"square_{bin_um:03d}um"
    (folder / "spatial").mkdir(parents=True)
    factors = {"microns_per_pixel": MPP, "bin_size_um": float(bin_um), "spot_diameter_fullres": bin_um / MPP}
    (folder / "spatial" / "scalefactors_json.json").write_text(json.dumps(factors))
    barcode = pl.format(
        "s_{}um_{}_{}-1",
        pl.lit(f"{bin_um:03d}"),
        pl.col("array_row").cast(pl.String).str.zfill(5),
        pl.col("array_col").cast(pl.String).str.zfill(5),
    )
    cell = pl.int_range(side * side, eager=False, dtype=pl.Int64)
    positions = (
        pl.select(array_row=cell // side, array_col=cell % side, in_tissue=(cell < in_tissue).cast(pl.Int64))
        .lazy()
        .with_columns(
            barcode=barcode,
            pxl_row_in_fullres=(pl.col("array_row") + 0.5) * bin_um / MPP,
            pxl_col_in_fullres=(pl.col("array_col") + 0.5) * bin_um / MPP,
        )
    )
    positions.sink_parquet(folder / "spatial" / "tissue_positions.parquet")
    order = np.random.default_rng(bin_um).permutation(in_tissue)  # the matrix has another order than the positions
    with h5py.File(folder / "filtered_feature_bc_matrix.h5", "w") as file:
        return write_matrix(file.create_group("matrix"), bin_um, order, side=side, drawn=drawn)


def write_matrix(matrix: h5py.Group, bin_um: int, order: np.ndarray, *, side: int, drawn: int) -> int:
    """Write barcodes, features and counts as 10x does: CSC of features × barcodes, chunked, shuffled, gzip 1."""
    packed = {"chunks": (CHUNK,), "compression": "gzip", "compression_opts": 1, "shuffle": True}
    matrix["shape"] = np.array([GENES, len(order)], np.int32)
    ids = np.array([f"ENSG{gene:011d}" for gene in range(GENES)], "S")
    matrix["features/id"], matrix["features/name"] = ids, np.char.replace(ids, b"ENSG", b"GENE")
    matrix["features/feature_type"] = np.full(GENES, b"Gene Expression")
    barcodes = matrix.create_dataset("barcodes", (len(order),), "S21", **packed)
    values = matrix.create_dataset("data", (0,), np.int32, maxshape=(None,), **packed)
    indices = matrix.create_dataset("indices", (0,), np.int64, maxshape=(None,), **packed)
    ends = [np.zeros(1, np.int64)]
    written = 0
    for start, lengths, genes, counts in blocks_of_counts(len(order), drawn=drawn, seed=bin_um):
        cells = order[start : start + len(lengths)].tolist()
        names = [f"s_{bin_um:03d}um_{cell // side:05d}_{cell % side:05d}-1" for cell in cells]
        barcodes[start : start + len(lengths)] = np.array(names, "S21")
        for dataset, part in ((values, counts), (indices, genes)):
            dataset.resize((written + len(part),))
            dataset[written:] = part
        ends.append(written + np.cumsum(lengths))
        written += len(genes)
    matrix.create_dataset("indptr", data=np.concatenate(ends), **packed)
    return written


def blocks_of_counts(num: int, *, drawn: int, seed: int) -> Iterator[tuple[int, np.ndarray, np.ndarray, np.ndarray]]:
    """First barcode, non-zero counts of each barcode, their genes and values; some genes are far more frequent."""
    rng = np.random.default_rng(seed)
    frequency = np.cumsum(rng.lognormal(sigma=1.5, size=GENES))
    for start in range(0, num, BLOCK_BARCODES):
        size = min(BLOCK_BARCODES, num - start)
        genes = np.searchsorted(frequency, rng.uniform(0, frequency[-1], size * drawn))
        keys, counts = np.unique(np.repeat(np.arange(size), drawn) * GENES + genes, return_counts=True)
        lengths = np.bincount(keys // GENES, minlength=size)
        yield start, lengths, keys % GENES, counts.astype(np.int32)


if __name__ == "__main__":
    main()

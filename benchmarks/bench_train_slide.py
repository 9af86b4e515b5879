"""Slides for the benchmarks of stage two: real grids, random content.

In: a backbone and a size. Out: a store with one slide, laid by `extract.levels.lay_levels` (windows of bins, pairing,
exact neighbours, raw counts summed into spots and regions) as extraction lays it. Pixels and features are one random
block repeated, of the encoder's width and 16 tokens: encoding a slide takes longer than all measurements, and no time
of stage two depends on their values. The headers are those that `extract run --weights random` writes, so that training
builds the encoder from them as ever.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
from scipy import sparse

from cache.schema import default_block_rows
from cache.store import Store
from cache.writer import ArrayWriter
from extract.config import EmbeddingConfig, GeometryConfig, RunConfig
from extract.geometry import geometry_header, write_levels
from extract.levels import Level, lay_levels
from extract.pipeline import embedding_settings, features_header, own_square
from extract.resolution import ResolvedMpp
from magnet_core.backbones.encoder import build_encoder
from magnet_core.backbones.find import find_backbone
from magnet_core.levels import bin_level, feature_name, find_target
from magnet_core.records import Assay, Genes, Sample, SlideCounts
from magnet_core.units import WORKING_MPP, patch_px
from train.data.slide import Slide, open_slide_data
from train.settings.fit import DataConfig

# N bins, G genes, T tokens, D features, p pixels

SLIDE_ID = "S1"
BINS_ALONG = 350  # 8 µm bins along a side: 50 × 50 spots of 56 µm, 22 × 22 regions of 128 µm
SAMPLED_BINS, SAMPLED_SPOTS = 6000, 2500  # a slide (paper, section 3)
NUM_GENES = 250
COUNTS_OF_BIN = 4  # genes seen in a bin


@dataclass(frozen=True)
class SlideSize:
    """A slide of `area` times the paper's bins, spots and regions; `pixels` where its bins are to be encoded."""

    area: float = 1
    pixels: bool = True


def make_slide(folder: Path, backbone: str, size: SlideSize) -> Slide:
    """Write a store with one slide, and open it for training on 8 µm bins."""
    write_store(folder, backbone, size)
    return open_made(folder, backbone)


def open_made(folder: Path, backbone: str) -> Slide:
    """Open the slide of a store written before."""
    return open_slide_data(Store(folder), SLIDE_ID, find_target(8), DataConfig(store=folder, backbone=backbone))


def write_store(folder: Path, backbone: str, size: SlideSize) -> None:
    """Write the geometry and the features of one slide."""
    store = Store.create(folder)
    rng = np.random.default_rng(0)
    geometry = GeometryConfig(
        targets=(8,), bins=round(SAMPLED_BINS * size.area), spots=round(SAMPLED_SPOTS * size.area)
    )
    sample = Sample(SLIDE_ID, Path("none.tif"), Path("none"), patient="P1")
    counts = whole_slide(round(BINS_ALONG * size.area**0.5), rng)
    levels = [
        replace(level, pixels=level.pixels and size.pixels)
        for level in lay_levels(counts, WORKING_MPP, geometry, slide_id=SLIDE_ID)
    ]
    slide_settings = {**geometry.plain(), "benchmark": asdict(size)}
    header = geometry_header(slide_settings, sample, ResolvedMpp(WORKING_MPP, "benchmark"), levels)
    with ArrayWriter(store.geometry_path(SLIDE_ID), header) as writer:
        write_levels(writer, levels, counts.genes)
        for level in levels:
            if level.pixels:
                side = patch_px(level.patch_um)
                put_random(writer, f"{level.name}/pixels", (len(level), side, side, 3), np.dtype(np.uint8), rng)
        writer.commit()
    write_features(store, levels, backbone, slide_settings, rng)
    store.register([{"slide_id": SLIDE_ID, "patient": "P1", "counts": "none"}])


def write_features(
    store: Store, levels: Sequence[Level], backbone: str, slide_settings: dict[str, object], rng: np.random.Generator
) -> None:
    """Write pooled features of all levels and tokens of the contexts, in blocks as extraction cuts them."""
    config = RunConfig(embedding=EmbeddingConfig(backbone=backbone, weights="random"))
    encoder = build_encoder(find_backbone(backbone), "random")
    header = features_header(embedding_settings(config, encoder), slide_settings, config)
    with ArrayWriter(store.features_path(SLIDE_ID, backbone, header["digest"]), header) as writer:
        for level in levels:
            shapes: dict[str, tuple[int, ...]] = {"pooled": (len(level), encoder.width)}
            if level.name != bin_level(8):
                shapes["tokens"] = (len(level), config.embedding.token_grid**2, encoder.width)
            square = own_square(level, config.embedding)
            if square is not None:
                shapes["own"] = (len(level), encoder.own_width(square))
            widest = max(int(np.prod(shape[1:])) for shape in shapes.values()) * np.dtype(np.float16).itemsize
            for kind, shape in shapes.items():
                block_rows = default_block_rows(widest)
                name = feature_name(level.name, kind)
                put_random(writer, name, shape, np.dtype(np.float16), rng, block_rows=block_rows)
        writer.commit()


def whole_slide(bins_along: int, rng: np.random.Generator) -> SlideCounts:
    """Counts of a square of tissue, a few genes in each bin."""
    y, x = np.divmod(np.arange(bins_along**2), bins_along)
    centres_px = (np.stack([x, y], axis=1) + 0.5) * (8 / WORKING_MPP)
    barcodes = np.char.add("bin_", np.arange(len(centres_px)).astype(np.str_))
    seen = len(centres_px) * COUNTS_OF_BIN
    values, genes = rng.integers(1, 5, seen, dtype=np.int32), rng.integers(0, NUM_GENES, seen, dtype=np.int32)
    row_ends = np.arange(0, seen + 1, COUNTS_OF_BIN)
    counts = sparse.csr_matrix((values, genes, row_ends), shape=(len(centres_px), NUM_GENES))
    counts.sum_duplicates()
    names = np.array([f"gene{number}" for number in range(NUM_GENES)])
    return SlideCounts("benchmark", Genes(names, names), {8: Assay(barcodes, centres_px, counts, 8.0)})


def put_random(
    writer: ArrayWriter,
    name: str,
    shape: tuple[int, ...],
    dtype: np.dtype,
    rng: np.random.Generator,
    *,
    block_rows: int | None = None,
) -> None:
    """Write an array (N, ...) whose blocks all hold the same random rows."""
    spec = writer.declare(name, shape, dtype, block_rows=block_rows)
    if dtype == np.uint8:
        rows = rng.integers(0, 256, spec.block_shape(0), np.uint8)
    else:
        rows = rng.standard_normal(spec.block_shape(0), np.float32).astype(dtype)
    for block in range(spec.num_blocks):
        writer.put_block(name, block, rows[: spec.block_shape(block)[0]])

"""A synthetic Visium HD data set, on one page. In: `SynthConfig`. Out: a folder with samples.csv and a slide per row.

    DIR/samples.csv
    DIR/<slide_id>/<slide_id>_tissue_image.btf
    DIR/<slide_id>/outs/…        Space Ranger's layout, 8 and 16 µm
    DIR/<slide_id>/truth/truth.h5

Image and counts follow from one tissue, so that counts can be learnt from the image and the best possible
prediction is known. samples.csv is written last: a folder with it is complete.
"""

import csv
from pathlib import Path

import numpy as np
from scipy import sparse

from extract.synthetic.cells import place_cells
from extract.synthetic.config import SynthConfig
from extract.synthetic.counts import BinTruth, negative_binomial, observe_bins, sum_into_coarse
from extract.synthetic.genes import GeneModel, draw_genes
from extract.synthetic.grid import BinGrid, lay_grid
from extract.synthetic.image import count_tiles, write_slide, write_thumbnails
from extract.synthetic.paint import compose
from extract.synthetic.space_ranger import FeatureTable, add_antibodies, list_features, write_bins, write_feature_slice
from extract.synthetic.sprites import SpriteBank, draw_bank
from extract.synthetic.stains import draw_stain
from extract.synthetic.tissue import draw_tissue
from extract.synthetic.truth import TruthWriter
from magnet_core.console import progress
from magnet_core.files import replacing
from magnet_core.hdf5 import replacing_hdf5
from magnet_core.seeding import named_rng

COLUMNS = ("slide_id", "image", "counts", "platform", "mpp", "patient")


def synthesise(directory: Path, config: SynthConfig) -> Path:
    """Make the data set under `directory` and return the path of its samples.csv.

    Slides already there under the same names are replaced.
    """
    samples = directory / "samples.csv"
    samples.unlink(missing_ok=True)
    genes = draw_genes(config.genes, named_rng(config.seed, "genes"))
    bank = draw_bank(config.mpp, named_rng(config.seed, "sprites"))
    rows = [_make_slide(directory, slide_id, config, genes, bank) for slide_id in config.slide_ids]
    with replacing(samples) as partial, partial.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([COLUMNS, *rows])
    return samples


def _make_slide(
    directory: Path, slide_id: str, config: SynthConfig, genes: GeneModel, bank: SpriteBank
) -> tuple[str, ...]:
    """Make one slide; returns its row of samples.csv."""
    rng = {part: named_rng(config.seed, slide_id, part) for part in ("tissue", "cells", "paint", "bins", "counts")}
    patient = config.patient_of(slide_id)
    stain = draw_stain(named_rng(config.seed, patient, "stain"))
    image = Path(slide_id, f"{slide_id}_tissue_image.btf")
    outs = Path(slide_id, "outs")

    tissue = draw_tissue(config.side_um, rng["tissue"])
    cells, spaces = place_cells(tissue, config.side_um, rng["cells"])
    painting = compose(tissue, cells, spaces, bank=bank, stain=stain, mpp=config.mpp, rng=rng["paint"])
    with progress(total=count_tiles(config.side_px), desc=f"{slide_id} tiles", unit="tile") as bar:
        reduced = write_slide(painting, config.side_px, directory / image, on_tile=bar.update)

    grid = lay_grid(config.side_um, config.rotation_deg, rng["bins"])
    bins = observe_bins(
        tissue, cells, grid, genes,
        umi_per_bin=config.umi_per_bin, capture_sd=config.capture_sd, rng=rng["bins"],
    )  # fmt: skip
    counts = _count(directory / slide_id / "truth" / "truth.h5", bins, genes, grid, config, rng["counts"])
    fine = add_antibodies(counts, rng["counts"])
    write_outs(
        directory / outs, grid, fine, bins.in_tissue, list_features(genes), reduced,
        side_px=config.side_px, mpp=config.mpp, rng=rng["counts"],
    )  # fmt: skip
    return slide_id, image.as_posix(), outs.as_posix(), "space_ranger_hd", "", patient


def _count(
    truth_path: Path, bins: BinTruth, genes: GeneModel, grid: BinGrid, config: SynthConfig, rng: np.random.Generator
) -> sparse.csr_matrix:
    """Draw the counts (B, G) of all bins, and write the rates they came from."""
    blocks = []
    with replacing_hdf5(truth_path) as file:
        truth = TruthWriter(file, bins, genes, grid.barcodes(), config)
        for block, rates in bins.rate_blocks(genes):
            truth.write(block, rates)
            blocks.append(negative_binomial(rates * bins.capture[block, None], config.dispersion, rng))
    return sparse.vstack(blocks, format="csr")


def write_outs(
    outs: Path, grid: BinGrid, counts: sparse.csr_matrix, in_tissue: np.ndarray, features: FeatureTable,
    reduced: np.ndarray, *, side_px: int, mpp: float, rng: np.random.Generator,
) -> None:  # fmt: skip
    """Write `outs/`: both bin sizes with their pictures, and the feature slice.

    `counts` (B, F) and `in_tissue` (B,) are of the 8 µm bins; `reduced` is the square picture, of `side_px` at full
    resolution, at a lower one.
    """
    coarse_tissue = np.zeros(len(grid) // 4, bool)
    coarse_tissue[grid.parent()[in_tissue]] = True
    levels = [(grid, counts, in_tissue), (grid.coarser(), sum_into_coarse(counts, grid), coarse_tissue)]
    for level, level_counts, level_tissue in levels:
        folder = outs / "binned_outputs" / f"square_{level.bin_um:03}um"
        scales = write_thumbnails(reduced, side_px, folder / "spatial")
        write_bins(folder, level, level_counts, level_tissue, features, mpp=mpp, scales=scales, rng=rng)
    write_feature_slice(outs / "feature_slice.h5", grid, mpp)

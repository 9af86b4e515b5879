"""Real H&E with counts drawn from it: how well a model reads a real image, where the truth is known.

In: sections of legacy spatial transcriptomics (folders `cnts imgs spots`, of which the images alone are used). Out: a
data set in Space Ranger's layout as `extract synth` writes it: of each section a square window where its tissue is
densest, 8 µm bins whose rates are smooth functions of the image, negative binomial counts, `truth/truth.h5`.

Of each bin five things are measured on the image, as means at three scales: over its own 8 µm, and Gaussian-weighted
over surroundings that are as wide as a spot and as a region (of the same sd as a square of 56 or 128 µm). A gene
follows two or three of them at one scale, its class. No tile and no border enters: what shows squares is the model.

    python benchmarks/semisynthetic.py SECTIONS OUT
"""

import csv
import json
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np
import typer
from PIL import Image
from scipy import ndimage, sparse
from skimage.color import rgb2hed

from extract.synthetic.counts import BLOCK_BINS, negative_binomial
from extract.synthetic.dataset import COLUMNS, write_outs
from extract.synthetic.grid import BIN_UM, BinGrid
from extract.synthetic.space_ranger import FeatureTable
from extract.synthetic.truth import SCHEMA
from magnet_core.errors import MagnetError
from magnet_core.files import replacing
from magnet_core.levels import REGION, SPOT
from magnet_core.seeding import named_rng
from magnet_core.slides import open_slide
from magnet_core.tissue import tissue_mask
from magnet_core.units import REGION_PATCH_UM, SPOT_PATCH_UM

# B bins of a window, in the order of their grid, F fields, G genes; h, w rows and columns of a picture

SUFFIXES = (".jpg", ".png", ".tif")
MPP = 0.687  # of the published sections: spots 200 µm apart lie some 291 px apart
ROTATION_DEG = 0.3  # of the bins against the image, as on a real slide
MARGIN_UM = 320.0  # of image around the bins: the patches of all regions around them lie inside
THUMBNAIL_STEP = 8  # full-resolution pixels a side in a pixel of the picture that the window is looked for on
CONTEXT_STEP = 4  # ... and of the rasters that surroundings are averaged on
FIELDS = ("haematoxylin", "eosin", "nuclei", "texture", "pale")
SCALES_UM = {"bin": float(BIN_UM), SPOT: SPOT_PATCH_UM, REGION: REGION_PATCH_UM}  # classes of genes
MEAN_LOG_SD = 0.7  # spread of the log of gene means
EFFECT = 0.8  # log change of a gene's rate with one sd of what it follows
MOST = 2.5  # sd that count: no gene fills the library of a bin alone
BEND = 0.2  # of the genes that bend, up or down: a share of the square
AMBIENT = 0.05  # of the rate, outside the tissue


@dataclass(frozen=True)
class GeneTable:
    """Genes (G,): ids, symbols, class (a scale), the field that counts most; mean; loadings (G, F); bend."""

    ids: np.ndarray
    symbols: np.ndarray
    classes: np.ndarray
    target: np.ndarray
    mean: np.ndarray
    loadings: np.ndarray
    bend: np.ndarray

    def rates(self, fields: dict[str, np.ndarray]) -> np.ndarray:
        """Expected expression (B, G) up to one factor; `fields` holds (B, F) for each class."""
        rates = np.empty((len(fields[SPOT]), len(self.ids)), np.float32)
        for scale, values in fields.items():
            genes = np.flatnonzero(self.classes == scale)
            drive = MOST * np.tanh(values @ self.loadings[genes].T / MOST)
            rates[:, genes] = self.mean[genes] * np.exp(EFFECT * (drive + self.bend[genes] * (drive**2 - 1)))
        return rates


@dataclass(frozen=True)
class Window:
    """A square of a section: its picture (h, h, 3) uint8, the bins on it, and which of them (B,) lie in tissue."""

    picture: np.ndarray
    grid: BinGrid
    in_tissue: np.ndarray


def main(
    sections: Path,
    out: Path,
    size_mm: float = 1.92,
    mpp: float = MPP,
    genes: int = 60,
    umi_per_bin: float = 100.0,
    dispersion: float = 0.2,
    seed: int = 0,
) -> None:
    """Write the data set; `genes` is the number in each class, a slide's patient the first letter of its name."""
    images = sorted(path for path in (sections / "imgs").glob("*") if path.suffix in SUFFIXES)
    if not images:
        raise MagnetError(sections, expected="images in imgs/", found="none", remedy="name the folder of the data set")
    table = draw_genes(genes, named_rng(seed, "genes"))
    settings = {"size_mm": size_mm, "mpp": mpp, "umi_per_bin": umi_per_bin, "dispersion": dispersion, "seed": seed}
    rows = []
    for image in images:
        slide_id = image.stem
        folder, rng = out / slide_id, named_rng(seed, slide_id, "counts")
        window = cut_window(image, size_um=size_mm * 1000, mpp=mpp)
        fields = image_fields(window, mpp)
        rates = table.rates(fields)
        rates *= umi_per_bin / np.median(rates[window.in_tissue].sum(axis=1))
        rates[~window.in_tissue] *= AMBIENT
        write_truth(folder / "truth" / "truth.h5", window, rates, fields, table, settings)
        with replacing(folder / f"{slide_id}.png") as partial:
            Image.fromarray(window.picture).save(partial, format="PNG", compress_level=1)
        features = FeatureTable(table.ids, table.symbols, np.full(len(table.ids), "Gene Expression"))
        write_outs(
            folder / "outs", window.grid, draw_counts(rates, dispersion, rng), window.in_tissue, features,
            window.picture[::CONTEXT_STEP, ::CONTEXT_STEP], side_px=len(window.picture), mpp=mpp, rng=rng,
        )  # fmt: skip
        rows.append((slide_id, f"{slide_id}/{slide_id}.png", f"{slide_id}/outs", "space_ranger_hd", mpp, slide_id[0]))
        print(f"{slide_id}: {window.in_tissue.sum():,} of {len(window.grid):,} bins in tissue", flush=True)
    with replacing(out / "samples.csv") as partial, partial.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([COLUMNS, *rows])


def cut_window(image: Path, *, size_um: float, mpp: float) -> Window:
    """Cut the square whose bins hold most stained tissue, with its margin, and lay bins on it."""
    with open_slide(image) as slide:
        width, height = slide.size_px
        section = slide.read_level(0, 0, 0, width, height)
    small = shrink(section, THUMBNAIL_STEP).astype(np.uint8)
    mask = tissue_mask(small, mpp=mpp * THUMBNAIL_STEP)
    stained = np.where(mask, rgb2hed(small)[..., :2].sum(axis=-1), 0.0)
    amount = ndimage.uniform_filter(stained, round(size_um / mpp / THUMBNAIL_STEP), mode="constant")
    size = round(size_um / BIN_UM) // 2 * 2
    side_px = round((size_um + 2 * MARGIN_UM) / mpp)
    half = -(-side_px // 2 // THUMBNAIL_STEP) + 1  # the whole picture lies on the section
    amount[:half] = amount[-half:] = amount[:, :half] = amount[:, -half:] = -1
    row, column = np.array(np.unravel_index(amount.argmax(), amount.shape))
    top, left = (int(place) * THUMBNAIL_STEP - side_px // 2 for place in (row, column))

    middle_um = side_px * mpp / 2
    grid = BinGrid(BIN_UM, size, (middle_um, middle_um), np.deg2rad(ROTATION_DEG))
    coarse_px = (grid.coarser().centres_um() / mpp + (left, top)) / THUMBNAIL_STEP
    columns, rows = coarse_px.astype(np.int64).T
    picture = np.ascontiguousarray(section[top : top + side_px, left : left + side_px])
    return Window(picture, grid, mask[rows, columns][grid.parent()])


def image_fields(window: Window, mpp: float) -> dict[str, np.ndarray]:
    """What is measured of each bin, (B, F) for each scale: mean 0 and sd 1 over the tissue, outliers drawn in."""
    grid, centres_um = window.grid, window.grid.centres_um()
    pixel_um = (np.arange(len(window.picture)) + 0.5) * mpp
    home = grid.index_of(np.stack(np.meshgrid(pixel_um, pixel_um), axis=-1).reshape(-1, 2))
    inside = home >= 0
    area = np.bincount(home[inside], minlength=len(grid))
    places = centres_um.T[::-1] / (mpp * CONTEXT_STEP) - 0.5  # row, column on the rasters of the surroundings
    fields: dict[str, list[np.ndarray]] = {scale: [] for scale in SCALES_UM}
    for channel in picture_channels(window.picture):
        raster = shrink(channel, CONTEXT_STEP)
        for scale, side_um in SCALES_UM.items():
            if scale == "bin":
                within = np.bincount(home[inside], weights=channel.ravel()[inside], minlength=len(grid)) / area
            else:
                around = ndimage.gaussian_filter(raster, side_um / np.sqrt(12) / (mpp * CONTEXT_STEP), mode="nearest")
                within = ndimage.map_coordinates(around, places, order=1, mode="nearest")
            known = within[window.in_tissue]
            fields[scale].append(3 * np.tanh((within - known.mean()) / known.std() / 3))
    return {scale: np.stack(columns, axis=1) for scale, columns in fields.items()}


def picture_channels(picture: np.ndarray) -> list[np.ndarray]:
    """Pictures (h, w) float32 of what `FIELDS` names, from the optical densities of both stains."""
    haematoxylin, eosin = np.moveaxis(rgb2hed(picture)[..., :2].astype(np.float32), -1, 0)
    density = ndimage.gaussian_filter(haematoxylin + eosin, 2.0)
    return [
        haematoxylin,
        eosin,
        soft_step(haematoxylin, haematoxylin.mean() + haematoxylin.std()),
        ndimage.gaussian_gradient_magnitude(haematoxylin, 1.0),
        -soft_step(density, density.mean() / 2),
    ]


def soft_step(values: np.ndarray, middle: float) -> np.ndarray:
    """From 0 well below the middle to 1 well above it."""
    return 1 / (1 + np.exp((middle - values) / (0.2 * values.std())))


def shrink(picture: np.ndarray, step: int) -> np.ndarray:
    """Means over squares of `step` pixels, float32, (h, w, ...) -> (h // step, w // step, ...); a rest is dropped."""
    height, width = (length // step for length in picture.shape[:2])
    whole = picture[: height * step, : width * step]
    return whole.reshape(height, step, width, step, *picture.shape[2:]).mean(axis=(1, 3), dtype=np.float32)


def draw_genes(number: int, rng: np.random.Generator) -> GeneTable:
    """Draw as many genes of each class."""
    classes = np.repeat(list(SCALES_UM), number)
    total = len(classes)
    symbols = np.array([f"{scale.upper()}{index + 1}" for scale in SCALES_UM for index in range(number)])
    loadings = rng.normal(size=(total, len(FIELDS)))
    order = rng.permuted(np.tile(np.arange(len(FIELDS)), (total, 1)), axis=1)
    loadings[order >= rng.integers(2, 4, (total, 1))] = 0  # two or three are left
    loadings /= np.linalg.norm(loadings, axis=1, keepdims=True)
    return GeneTable(
        ids=np.array([f"ENSGSEMI{index + 1:08}" for index in range(total)]),
        symbols=symbols,
        classes=classes,
        target=np.array(FIELDS)[np.abs(loadings).argmax(axis=1)],
        mean=np.exp(MEAN_LOG_SD * rng.normal(size=total)),
        loadings=loadings,
        bend=BEND * rng.integers(-1, 2, total),
    )


def draw_counts(rates: np.ndarray, dispersion: float, rng: np.random.Generator) -> sparse.csr_matrix:
    """Draw counts (B, G) by blocks of bins."""
    blocks = (rates[start : start + BLOCK_BINS] for start in range(0, len(rates), BLOCK_BINS))
    return sparse.vstack([negative_binomial(block, dispersion, rng) for block in blocks], format="csr")


def write_truth(
    path: Path, window: Window, rates: np.ndarray, fields: dict[str, np.ndarray], genes: GeneTable,
    settings: dict[str, object],
) -> None:  # fmt: skip
    """Write `truth.h5` as `extract.synthetic.truth` has it: one domain, no boundary, and as content the fields."""
    kept = window.in_tissue
    with replacing(path) as partial, h5py.File(partial, "w") as file:
        file.attrs["schema"] = SCHEMA
        file.attrs["config"] = json.dumps(settings)
        file.attrs["cell_types"] = json.dumps([f"{field}, {scale}" for scale in fields for field in FIELDS])
        file.attrs["domains"] = json.dumps(["tissue"])
        file["barcodes"] = np.char.encode(window.grid.barcodes()[kept], "ascii")
        file["rates"] = rates[kept].astype(np.float16)
        file["content"] = np.concatenate(list(fields.values()), axis=1)[kept].astype(np.float32)
        file["domain"] = np.zeros(kept.sum(), np.int8)
        file["boundary_um"] = np.full(kept.sum(), np.inf, np.float32)
        file["capture"] = np.ones(kept.sum(), np.float32)
        columns = {"id": genes.ids, "symbol": genes.symbols, "class": genes.classes, "target": genes.target}
        for name, values in columns.items():
            file[f"genes/{name}"] = np.char.encode(values, "ascii")


if __name__ == "__main__":
    typer.run(main)

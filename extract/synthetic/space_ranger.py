"""Counts as Space Ranger 3 leaves them on disk. In: one bin grid with counts. Out: `binned_outputs/square_…um/`.

Format: `{filtered,raw}_feature_bc_matrix.h5` (CSC, features by barcodes), `spatial/tissue_positions.parquet`,
`spatial/scalefactors_json.json`, and `feature_slice.h5` beside `binned_outputs/`, of which only the metadata is
written. As in real files, the matrix has its own order of barcodes, gene symbols repeat, and some features are no
genes.
"""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
from scipy import sparse

from extract.synthetic.genes import GeneModel
from extract.synthetic.grid import BinGrid
from magnet_core.files import replacing, write_text
from magnet_core.hdf5 import replacing_hdf5

ANTIBODIES = ("CD3E", "CD19")
ANTIBODY_MEAN = 6.0

# B bins, F features: G genes, then the antibodies


@dataclass(frozen=True)
class FeatureTable:
    """Rows of the feature table: ids, names and types, each (F,) str."""

    ids: np.ndarray
    names: np.ndarray
    types: np.ndarray


def list_features(genes: GeneModel) -> FeatureTable:
    """Return the genes and, after them, the antibodies."""
    antibody_ids = [f"{name}.ab" for name in ANTIBODIES]
    types = ["Gene Expression"] * len(genes) + ["Antibody Capture"] * len(ANTIBODIES)
    return FeatureTable(
        np.concatenate([genes.ids, antibody_ids]), np.concatenate([genes.symbols, ANTIBODIES]), np.array(types)
    )


def add_antibodies(counts: sparse.csr_matrix, rng: np.random.Generator) -> sparse.csr_matrix:
    """Append counts of the antibodies, (B, G) -> (B, F); they follow nothing."""
    bound = rng.poisson(ANTIBODY_MEAN, (counts.shape[0], len(ANTIBODIES))).astype(np.int32)
    return sparse.hstack([counts, sparse.csr_matrix(bound)], format="csr")


def write_bins(
    folder: Path, grid: BinGrid, counts: sparse.csr_matrix, in_tissue: np.ndarray, features: FeatureTable, *,
    mpp: float, scales: dict[str, float], rng: np.random.Generator,
) -> None:  # fmt: skip
    """Write one `square_…um` folder. `counts` (B, F) and `in_tissue` (B,) are in the order of the grid."""
    barcodes = grid.barcodes()
    spatial = folder / "spatial"
    _write_positions(spatial / "tissue_positions.parquet", grid, barcodes, in_tissue, mpp)
    write_text(spatial / "scalefactors_json.json", json.dumps(_scale_factors(grid.bin_um, mpp, scales)))
    order = rng.permutation(len(grid))
    kept = order[in_tissue[order]]
    write_matrix(folder / "raw_feature_bc_matrix.h5", counts[order], barcodes[order], features)
    write_matrix(folder / "filtered_feature_bc_matrix.h5", counts[kept], barcodes[kept], features)


def write_matrix(path: Path, counts: sparse.csr_matrix, barcodes: np.ndarray, features: FeatureTable) -> None:
    """Write a feature-barcode matrix; CSR of (bins, features) is the CSC of (features, bins) the format asks for."""
    counts.sort_indices()
    packed = {"compression": "gzip", "compression_opts": 1, "shuffle": True, "chunks": True}
    with replacing_hdf5(path) as file:
        file.attrs.update(filetype="matrix", version=2, software_version="synthetic", chemistry_description="Visium HD")
        matrix = file.create_group("matrix")
        matrix["barcodes"] = np.char.encode(barcodes, "ascii")
        matrix["shape"] = np.array(counts.shape[::-1], np.int32)
        matrix.create_dataset("data", data=counts.data.astype(np.int32), **packed)
        matrix.create_dataset("indices", data=counts.indices.astype(np.int64), **packed)
        matrix.create_dataset("indptr", data=counts.indptr.astype(np.int64), **packed)
        table = matrix.create_group("features")
        genome = np.where(features.types == "Gene Expression", "synthetic", "")
        columns = {"id": features.ids, "name": features.names, "feature_type": features.types, "genome": genome}
        for column, values in columns.items():
            table[column] = np.char.encode(values, "ascii")
        table["_all_tag_keys"] = np.array([b"genome"])


def write_feature_slice(path: Path, grid: BinGrid, mpp: float) -> None:
    """Write the metadata of `feature_slice.h5`: the layout and where its 2 µm squares lie in the image."""
    step, cos, sin = 2 / mpp, np.cos(grid.angle_rad), np.sin(grid.angle_rad)
    half = grid.size * grid.bin_um / 2 / 2
    turn = np.array([[step * cos, -step * sin], [step * sin, step * cos]])
    origin = np.array(grid.centre_um) / mpp - turn @ [half, half]
    to_image = np.vstack([np.column_stack([turn, origin]), [0, 0, 1]])
    matrices = {
        "spot_colrow_to_microscope_colrow": to_image.tolist(),
        "microscope_colrow_to_spot_colrow": np.linalg.inv(to_image).tolist(),
    }
    layout = {"file_format": "1.0", "transform": np.eye(3).tolist()}
    metadata = {"hd_layout_json": json.dumps(layout), "transform_matrices": matrices}
    with replacing_hdf5(path) as file:
        file.attrs["metadata_json"] = json.dumps(metadata)


def _scale_factors(bin_um: int, mpp: float, scales: dict[str, float]) -> dict[str, float]:
    return {
        "spot_diameter_fullres": bin_um / mpp,
        "bin_size_um": float(bin_um),
        "microns_per_pixel": mpp,
        "regist_target_img_scalef": scales["tissue_hires_scalef"],
        "fiducial_diameter_fullres": 165.0 / mpp,
        **scales,
    }


def _write_positions(path: Path, grid: BinGrid, barcodes: np.ndarray, in_tissue: np.ndarray, mpp: float) -> None:
    rows, cols = grid.rows_cols()
    x_px, y_px = (grid.centres_um() / mpp).T
    table = pl.DataFrame(
        {
            "barcode": barcodes,
            "in_tissue": in_tissue.astype(np.int64),
            "array_row": rows,
            "array_col": cols,
            "pxl_row_in_fullres": y_px,
            "pxl_col_in_fullres": x_px,
        }
    )
    with replacing(path) as partial:
        table.write_parquet(partial)

"""Predictions of a slide as AnnData, for squidpy, scanpy and napari.

In: predictions in the order of the store's rows, and the slide they are of. Out: an .h5ad file:

    X                         float32 (N, P), normalised expression as the run's configuration says
    obs                       barcodes; in_tissue, and array_row and array_col where the barcodes tell them
    var                       gene names; gene_ids
    obsm                      spatial (x, y) in full-resolution pixels, spatial_um
    uns['spatial'][slide_id]  pictures of the tissue and scale factors, as squidpy has them
    uns['magnet_hd']          where the values come from
    layers                    measured, deviation: (N, P), where they are wanted and there
"""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from cache.store import package_versions
from magnet_core.hdf5 import replacing_hdf5
from train.predict.prediction import SlidePrediction
from train.predict.thumbnails import thumbnails

# N rows, P genes of the file

if TYPE_CHECKING:
    from anndata import AnnData

_CELL = r"[a-z]+_(?:\d{3}um_)?(\d{5,})_(\d{5,})(?:-1)?"  # s_008um_00012_00034-1 and spot_00003_00004, the row first


def as_anndata(prediction: SlidePrediction) -> "AnnData":
    """Lay a prediction out as AnnData; `values` are taken as they are, without a copy."""
    from anndata import AnnData  # takes a second to import: not for every command

    slide = prediction.slide
    table = AnnData(prediction.values)
    table.obs_names = slide.fine.barcodes().astype(object)
    table.var_names = prediction.genes.names.astype(object)
    table.var["gene_ids"] = prediction.genes.ids.astype(object)
    table.obs["in_tissue"] = np.ones(len(slide.fine), np.int64)
    if (cells := _cells(table.obs_names)) is not None:
        table.obs["array_row"], table.obs["array_col"] = cells.T
    table.obsm["spatial"] = prediction.centres_px
    table.obsm["spatial_um"] = slide.fine.centres_um
    layers = {"measured": prediction.measured, "deviation": prediction.deviation}
    for name, values in layers.items():
        if values is not None:
            table.layers[name] = values
    table.uns["spatial"] = {slide.slide_id: _tissue(prediction)}
    table.uns["magnet_hd"] = _provenance(prediction)
    return table


def write_h5ad(table: "AnnData", path: Path) -> None:
    """Write AnnData so that a reader finds the old file or the new one, never a part."""
    from anndata.io import write_elem

    table.strings_to_categoricals()
    with replacing_hdf5(path) as file:
        write_elem(file, "/", table)
        file.pop("raw", None)  # empty, and not in a file that AnnData writes to a path


def _tissue(prediction: SlidePrediction) -> dict[str, Any]:
    """Return `uns['spatial'][slide_id]`: the pictures, how they are scaled, how wide a row is in the image's pixels."""
    pictures = thumbnails(prediction.picture, mpp=prediction.mpp)
    # Without a picture there is none to scale to; 1 lets one at full resolution be put in as it is.
    scales = {"hires": 1.0} | {name: picture.scale for name, picture in pictures.items()}
    return {
        "images": {name: picture.pixels for name, picture in pictures.items()},
        "scalefactors": {
            "spot_diameter_fullres": prediction.side_um / prediction.mpp,
            **{f"tissue_{name}_scalef": scale for name, scale in scales.items()},
        },
        "metadata": {"image": prediction.header["image"]},
    }


def _provenance(prediction: SlidePrediction) -> dict[str, Any]:
    """Return `uns['magnet_hd']`: what a value means, and all that decided it."""
    slide, header, run = prediction.slide, prediction.header, prediction.run
    return {
        **prediction.source,
        "config": json.dumps(run.config.plain()),
        "versions": package_versions(),
        "normalisation": run.config.data.normalise.plain(),
        "panel": run.panel.ids.astype(object),
        "slide_id": slide.slide_id,
        "patient": slide.patient,
        "target_um": slide.target.um,
        "level": slide.fine.name,
        "sampling": header["settings"]["sampling"],
        "microns_per_pixel": header["mpp"],
        "microns_per_pixel_source": header["mpp_source"],
        "geometry_digest": header["digest"],
        "backbone": slide.features_header["backbone"],
        "features_settings_digest": slide.features_header["settings_digest"],
    }


def _cells(barcodes: Any) -> np.ndarray | None:
    """Return row and column (N, 2) of the lattice that barcodes are named after; None where they are not."""
    cells = barcodes.str.extract(f"^{_CELL}$")
    return None if cells.isna().any(axis=None) else cells.to_numpy().astype(np.int64)

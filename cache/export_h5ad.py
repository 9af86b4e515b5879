"""One level of a slide as AnnData: `cache export --to x.h5ad`, for scanpy and squidpy.

In: the slide's geometry in the store, and features if there are any. Out: an .h5ad file, its elements written by
anndata: raw counts in X, centres in level-0 pixels in obsm['spatial'], µm/px in uns. Only X, a `csr_matrix` 0.1.0, is
put together here, as its arrays pass one at a time.
"""

from pathlib import Path

import h5py
import numpy as np

from cache.reader import ArrayFile
from cache.store import Store, backbone_slug
from magnet_core.errors import MagnetError
from magnet_core.hdf5 import replacing_hdf5
from magnet_core.registry import look_up

# N rows of the level, G genes, D features


def export_h5ad(store: Store, to: Path, *, slide_id: str, level: str, features: ArrayFile | None = None) -> int:
    """Write one level, with the pooled features of `features` in obsm['X_<backbone>']; return the number of rows.

    A level without counts (an H&E-only slide, the centres of spots) is an error.
    """
    import pandas as pd
    from anndata.io import write_elem  # takes two seconds to import: not for every command

    with store.geometry(slide_id) as geometry:
        facts = look_up(geometry.header["levels"], level, where=f"{slide_id}: --level")
        if f"{level}/counts/indptr" not in geometry.names():
            raise MagnetError(
                f"{slide_id}, level '{level}'",
                expected="a level with counts",
                found="one without",
                remedy="export its features with --to x.h5, or choose another --level",
            )
        barcodes, genes = geometry.read(f"{level}/barcode"), pd.Index(geometry.read("genes/name").astype(object))
        mpp = geometry.header["mpp"]
        with replacing_hdf5(to) as file:
            file.attrs.update({"encoding-type": "anndata", "encoding-version": "0.1.0"})
            _put_counts(file, geometry, level, num_rows=len(barcodes))
            write_elem(file, "obs", pd.DataFrame(index=barcodes.astype(object)))
            write_elem(file, "var", pd.DataFrame({"gene_ids": geometry.read("genes/id").astype(object)}, index=genes))
            obsm = {"spatial": geometry.read(f"{level}/centres_um") / mpp}
            if features is not None and f"{level}/pooled" in features.names():
                pooled = features.read(f"{level}/pooled").astype(np.float32)
                obsm[f"X_{backbone_slug(features.header['backbone'])}"] = pooled
            write_elem(file, "obsm", obsm)
            write_elem(
                file,
                "uns",
                _description(geometry, slide_id, store.patient(slide_id), level=level, spot_px=facts["patch_um"] / mpp),
            )
            for empty in ("layers", "obsp", "varm", "varp"):
                write_elem(file, empty, {})
    return len(barcodes)


def _description(geometry: ArrayFile, slide_id: str, patient: str, *, level: str, spot_px: float) -> dict[str, object]:
    """Return `uns`: squidpy's `spatial` entry, and what the store knows of the slide."""
    header = geometry.header
    scale_factors = {"spot_diameter_fullres": spot_px, "tissue_hires_scalef": 1.0, "microns_per_pixel": header["mpp"]}
    return {
        "spatial": {slide_id: {"images": {}, "scalefactors": scale_factors, "metadata": {"image": header["image"]}}},
        "magnet_hd": {
            "slide_id": slide_id,
            "patient": patient,
            "level": level,
            "microns_per_pixel": header["mpp"],
            "microns_per_pixel_source": header["mpp_source"],
            "geometry_digest": header["digest"],
        },
    }


def _put_counts(file: h5py.File, geometry: ArrayFile, level: str, *, num_rows: int) -> None:
    """Write X as CSR (N, G), int32."""
    group = file.create_group("X")
    group.attrs.update({"encoding-type": "csr_matrix", "encoding-version": "0.1.0"})
    group.attrs["shape"] = np.array([num_rows, geometry.spec("genes/id").rows])
    for ours, theirs in (("values", "data"), ("indices", "indices"), ("indptr", "indptr")):
        group[theirs] = geometry.read(f"{level}/counts/{ours}")

"""One level of a slide as AnnData: `cache export --to x.h5ad`, for scanpy and squidpy.

In: the slide's geometry in the store, and features if there are any. Out: an .h5ad file in AnnData's published on-disk
format (elements `anndata` 0.1.0, `csr_matrix` 0.1.0, `dataframe` 0.2.0, `dict` 0.1.0, `array` 0.2.0), written by h5py:
raw counts in X, centres in level-0 pixels in obsm['spatial'], µm/px in uns. Arrays pass one at a time.
"""

from collections.abc import Mapping
from pathlib import Path

import h5py
import numpy as np

from cache.reader import ArrayFile
from cache.store import Store, backbone_slug
from magnet_core.errors import MagnetError
from magnet_core.registry import look_up

# N rows of the level, G genes, D features


def export_h5ad(store: Store, to: Path, *, slide_id: str, level: str, features: ArrayFile | None = None) -> int:
    """Write one level, with the pooled features of `features` in obsm['X_<backbone>']; return the number of rows.

    A level without counts (an H&E-only slide, the centres of spots) is an error.
    """
    to.parent.mkdir(parents=True, exist_ok=True)
    partial = to.with_name(f"{to.name}.partial")
    with store.geometry(slide_id) as geometry:
        facts = look_up(geometry.header["levels"], level, where=f"{slide_id}: --level")
        if f"{level}/counts/indptr" not in geometry.names():
            raise MagnetError(
                f"{slide_id}, level '{level}'",
                expected="a level with counts",
                found="one without",
                remedy="export its features with --to x.h5, or choose another --level",
            )
        barcodes, centres_um = geometry.read(f"{level}/barcode"), geometry.read(f"{level}/centres_um")
        mpp = geometry.header["mpp"]
        with h5py.File(partial, "w") as file:
            _mark(file, "anndata")
            _put_counts(file, geometry, level, num_rows=len(barcodes))
            _put_table(file, "obs", barcodes, {})
            _put_table(file, "var", geometry.read("genes/name"), {"gene_ids": geometry.read("genes/id")})
            obsm = {"spatial": centres_um / mpp}
            if features is not None and f"{level}/pooled" in features.names():
                obsm[f"X_{backbone_slug(features.header['backbone'])}"] = features.read(f"{level}/pooled").astype(
                    np.float32
                )
            _put(file, "obsm", obsm)
            _put(file, "uns", _description(geometry, slide_id, level, spot_px=facts["patch_um"] / mpp))
            for empty in ("layers", "obsp", "varm", "varp"):
                _put(file, empty, {})
    partial.replace(to)
    return len(barcodes)


def _description(geometry: ArrayFile, slide_id: str, level: str, *, spot_px: float) -> dict[str, object]:
    """Return `uns`: squidpy's `spatial` entry, and what the store knows of the slide."""
    header = geometry.header
    scale_factors = {"spot_diameter_fullres": spot_px, "tissue_hires_scalef": 1.0, "microns_per_pixel": header["mpp"]}
    return {
        "spatial": {slide_id: {"images": {}, "scalefactors": scale_factors, "metadata": {"image": header["image"]}}},
        "magnet_hd": {
            "slide_id": slide_id,
            "patient": header["patient"],
            "level": level,
            "microns_per_pixel": header["mpp"],
            "microns_per_pixel_source": header["mpp_source"],
            "geometry_digest": header["digest"],
        },
    }


def _put_counts(file: h5py.File, geometry: ArrayFile, level: str, *, num_rows: int) -> None:
    """Write X as CSR (N, G), int32."""
    group = file.create_group("X")
    _mark(group, "csr_matrix")
    group.attrs["shape"] = np.array([num_rows, geometry.spec("genes/id").rows])
    for ours, theirs in (("values", "data"), ("indices", "indices"), ("indptr", "indptr")):
        group[theirs] = geometry.read(f"{level}/counts/{ours}")


def _put_table(file: h5py.File, name: str, index: np.ndarray, columns: Mapping[str, np.ndarray]) -> None:
    group = file.create_group(name)
    _mark(group, "dataframe", version="0.2.0")
    group.attrs["_index"] = "_index"
    group.attrs.create("column-order", list(columns), dtype=h5py.string_dtype())
    for column, values in {"_index": index, **columns}.items():
        _put(group, column, values)


def _put(group: h5py.Group, name: str, value: object) -> None:
    """Write a mapping, an array of numbers or of text, a number or a text under the name."""
    if isinstance(value, Mapping):
        inner = group.create_group(name)
        _mark(inner, "dict")
        for key, item in value.items():
            _put(inner, key, item)
    elif isinstance(value, np.ndarray) and value.dtype.kind == "U":
        group.create_dataset(name, data=value.astype(object), dtype=h5py.string_dtype())
        _mark(group[name], "string-array", version="0.2.0")
    else:
        group[name] = value
        kinds = {np.ndarray: "array", str: "string"}
        _mark(group[name], kinds.get(type(value), "numeric-scalar"), version="0.2.0")


def _mark(element: h5py.Group | h5py.Dataset, kind: str, *, version: str = "0.1.0") -> None:
    element.attrs["encoding-type"] = kind
    element.attrs["encoding-version"] = version

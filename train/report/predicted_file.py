"""Reads back what `train predict` wrote: an AnnData file, whose genes are read a few at a time.

In: an .h5ad file. Out: places, barcodes, genes and origin of a `PredictedFile`, and values of chosen columns.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from cache.picture import Picture
from magnet_core.checked_h5 import check_h5
from magnet_core.errors import MagnetError
from magnet_core.records import Genes

# N rows, P genes of the file, p chosen ones

ORIGIN = "uns/magnet_hd"
MEASURED, DEVIATION = "layers/measured", "layers/deviation"
_PARTS = ("X", "obs/", "var/", "obsm/spatial_um", "uns/spatial/", f"{ORIGIN}/", f"{MEASURED}?", f"{DEVIATION}?")
_TOLD = ("slide_id", "target_um", "geometry_digest", "sampling")
_EXPECTED, _REMEDY = "a prediction as 'train predict' writes it", "predict the slide again with --overwrite"


@dataclass(frozen=True)
class PredictedFile:
    """What a file is of.

    genes     ids and names (P,)
    origin    of `uns['magnet_hd']` slide_id, target_um, geometry_digest and sampling, as far as they are there
    panel     ids of all genes of the run, of which the file may have a part
    weights   fingerprints of those of the run, or of each member of an ensemble
    """

    path: Path
    genes: Genes
    origin: dict[str, Any]
    panel: np.ndarray
    weights: tuple[str, ...] = ()

    @property
    def slide_id(self) -> str:
        """The slide."""
        return str(self.origin["slide_id"])

    @property
    def target_um(self) -> int:
        """The target that was predicted."""
        return int(self.origin["target_um"])

    def places(self) -> tuple[np.ndarray, np.ndarray]:
        """Barcodes (N,) and centres (N, 2) in µm."""
        from anndata.io import read_elem

        with _opened(self.path) as file:
            return read_elem(file["obs"]).index.to_numpy(str), file["obsm/spatial_um"][...].astype(np.float64)

    def values(self, columns: np.ndarray, *, of: str = "X") -> np.ndarray | None:
        """Columns (p,) of the prediction or of a layer, (N, p) float32; None where the file has no such layer."""
        order = np.argsort(columns)  # HDF5 takes rising columns alone
        with _opened(self.path) as file:
            if of not in file:
                return None
            taken = np.asarray(file[of][:, np.asarray(columns)[order]], dtype=np.float32)
        return taken[:, np.argsort(order)]

    def side_um(self) -> float:
        """Side of a row."""
        with _opened(self.path) as file:
            (entry,) = file["uns/spatial"].values()
            return float(entry["scalefactors/spot_diameter_fullres"][()]) * _um_per_px(file)

    def picture(self) -> Picture | None:
        """The picture of the slide that the file has, if it has one."""
        with _opened(self.path) as file:
            (entry,) = file["uns/spatial"].values()
            if "images" not in entry or "hires" not in entry["images"]:
                return None
            pixels = entry["images/hires"][...]
            if pixels.dtype != np.uint8:  # as squidpy may have them, from 0 to 1
                pixels = np.rint(pixels * 255).astype(np.uint8)
            return Picture(pixels, _um_per_px(file) / float(entry["scalefactors/tissue_hires_scalef"][()]))


def open_predicted(path: Path) -> PredictedFile:
    """Look at a file; one that is no prediction is an error."""
    from anndata.io import read_elem

    check_h5(path, _PARTS, expected=_EXPECTED, remedy=_REMEDY)
    with _opened(path) as file:
        var, origin = read_elem(file["var"]), file[ORIGIN]
        told = {name: _plain(origin[name][()]) for name in _TOLD if name in origin and origin[name].shape == ()}
        genes = Genes(var["gene_ids"].to_numpy(str), var.index.to_numpy(str))
        told["slide_id"], told["target_um"] = str(told["slide_id"]), int(told["target_um"])
        panel = np.asarray(read_elem(origin["panel"])).astype(str)
        weights = np.atleast_1d(read_elem(origin["weights"])).astype(str).tolist() if "weights" in origin else []
        return PredictedFile(path, genes, told, panel, tuple(weights))


@contextmanager
def _opened(path: Path) -> Iterator[h5py.File]:
    try:
        with h5py.File(path, "r") as file:
            yield file
    except (OSError, KeyError, TypeError, ValueError, IndexError, RuntimeError, AttributeError) as error:
        raise MagnetError(path, expected=_EXPECTED, found=str(error), remedy=_REMEDY) from error


def _plain(value: Any) -> Any:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else value


def _um_per_px(file: h5py.File) -> float:
    """µm per pixel of the full-resolution image."""
    return float(file[f"{ORIGIN}/microns_per_pixel"][()])

"""The known truth beside a synthetic slide. In: `BinTruth`, genes, config. Out: `truth/truth.h5`, and reading it back.

Format of `truth.h5`, n = 8 µm bins in tissue in the order of the grid, G genes in the order of the matrices:

    attrs        schema, config (JSON), cell_types (JSON), domains (JSON)
    barcodes     (n,)    as in the matrices
    rates        (n, G)  float16, expected UMIs at capture efficiency 1
    content      (n, T)  float32, expected RNA by cell type (the model's input, scaled to UMIs)
    domain       (n,)    int8, index into `domains`; −1 where the bin's centre lies on glass
    boundary_um  (n,)    float32, distance to tissue of another family
    capture      (n,)    float32, capture efficiency of the bin
    genes/{id, symbol, class, target}  (G,)

The 16 µm truth is the sum over a bin's four 8 µm bins. The best prediction of a *normalised, logged* count is its mean
given the rates, to be had by drawing counts (`counts.negative_binomial`); the log of the normalised rates is a worse
one, since a logged count also depends on how few UMIs its bin has.
"""

import json
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np

from extract.synthetic.config import SynthConfig
from extract.synthetic.counts import BinTruth
from extract.synthetic.genes import GeneModel
from extract.synthetic.histology import CELL_NAMES, DOMAIN_NAMES

SCHEMA = "magnet-hd synthetic truth 1"

# n bins in tissue, T cell types, G genes


@dataclass(frozen=True)
class Truth:
    """What `truth.h5` holds; see the module's text. Strings are str arrays."""

    barcodes: np.ndarray
    rates: np.ndarray
    content: np.ndarray
    domain: np.ndarray
    boundary_um: np.ndarray
    capture: np.ndarray
    gene_ids: np.ndarray
    gene_class: np.ndarray
    gene_target: np.ndarray


class TruthWriter:
    """Fills an open `truth.h5`, block of bins by block."""

    def __init__(
        self, file: h5py.File, bins: BinTruth, genes: GeneModel, barcodes: np.ndarray, config: SynthConfig
    ) -> None:
        self._in_tissue = bins.in_tissue
        self._row = np.concatenate([[0], np.cumsum(bins.in_tissue)])
        file.attrs["schema"] = SCHEMA
        file.attrs["config"] = json.dumps(config.plain())
        file.attrs["cell_types"] = json.dumps(CELL_NAMES)
        file.attrs["domains"] = json.dumps(DOMAIN_NAMES)
        file["barcodes"] = np.char.encode(barcodes[bins.in_tissue], "ascii")
        file["content"] = bins.content[bins.in_tissue, :-1]
        file["domain"] = bins.domain[bins.in_tissue]
        file["boundary_um"] = bins.boundary_um[bins.in_tissue]
        file["capture"] = bins.capture[bins.in_tissue]
        for name, values in _gene_columns(genes).items():
            file[f"genes/{name}"] = np.char.encode(values, "ascii")
        shape = (int(self._row[-1]), len(genes))
        self._rates = file.create_dataset("rates", shape, np.float16)

    def write(self, block: slice, rates: np.ndarray) -> None:
        """Keep the rates (block, G) of the bins in tissue."""
        keep = self._in_tissue[block]
        start = self._row[block.start]
        self._rates[start : start + keep.sum()] = rates[keep].astype(np.float16)


def read_truth(path: Path) -> Truth:
    """Read a `truth.h5` back, rates as float32."""
    with h5py.File(path, "r") as file:
        return Truth(
            barcodes=file["barcodes"].asstr()[:],
            rates=file["rates"][:].astype(np.float32),
            content=file["content"][:],
            domain=file["domain"][:],
            boundary_um=file["boundary_um"][:],
            capture=file["capture"][:],
            gene_ids=file["genes/id"].asstr()[:],
            gene_class=file["genes/class"].asstr()[:],
            gene_target=file["genes/target"].asstr()[:],
        )


def _gene_columns(genes: GeneModel) -> dict[str, np.ndarray]:
    return {"id": genes.ids, "symbol": genes.symbols, "class": genes.classes, "target": genes.target}

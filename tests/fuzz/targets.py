"""The parsers that read files from elsewhere, each with small whole files to begin from.

In: a folder for the seeds. Out: targets by name. What a target calls is what a command calls first on such a file.
"""

import gzip
import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import anndata
import h5py
import numpy as np
import pandas as pd
import polars as pl
import tifffile
import tomli_w
import torch
from PIL import Image
from safetensors.torch import save_file

from cache.feature_h5 import PatchFeatures, read_feature_h5, write_feature_h5
from cache.reader import ArrayFile
from cache.store import Store
from cache.writer import ArrayWriter
from extract.config import load_run as load_extraction
from extract.readers import hest, legacy_st
from extract.readers.positions import read_positions
from extract.readers.tenx_h5 import read_tenx_h5
from extract.samples import read_samples
from magnet_core.backbones.checkpoint import read_weights
from magnet_core.slides import open_slide
from train.learning.checkpoint import read_checkpoint
from train.learning.trained_run import load_run
from train.places import read_record
from train.settings.fit import load_config

RNG = np.random.default_rng(0)
COMPRESSIONS = (None, "deflate", "lzw", "jpeg", "packbits")


@dataclass(frozen=True)
class Target:
    """One parser.

    seeds  writes whole files into a folder and returns them; the name of a mutant is that of its seed
    parse  reads one file as the product does; a `MagnetError` is a good answer
    """

    name: str
    seeds: Callable[[Path], list[Path]]
    parse: Callable[[Path], object]


def _picture() -> np.ndarray:
    return RNG.integers(0, 255, (96, 80, 3)).astype(np.uint8)


def _tiffs(folder: Path) -> list[Path]:
    paths = []
    for number, compression in enumerate(COMPRESSIONS):
        path = folder / f"{compression}.tif"
        tile = {"tile": (32, 32)} if number % 2 else {"rowsperstrip": 16}
        tifffile.imwrite(path, _picture(), compression=compression, photometric="rgb", **tile,
                         byteorder="<>"[number % 2], bigtiff=number == 3, metadata=None)  # fmt: skip
        paths.append(path)
    ome = folder / "pyramid.ome.tif"
    with tifffile.TiffWriter(ome, ome=True) as writer:
        facts = {"PhysicalSizeX": 0.5, "PhysicalSizeY": 0.5, "PhysicalSizeXUnit": "µm"}
        writer.write(_picture(), tile=(32, 32), photometric="rgb", metadata=facts, subifds=1)
        writer.write(_picture()[::2, ::2], tile=(32, 32), photometric="rgb", subfiletype=1)
    return [*paths, ome]


def _flat(ending: str, **options: Any) -> Callable[[Path], list[Path]]:
    def make(folder: Path) -> list[Path]:
        paths = []
        for mode in ("RGB", "L", *(("P", "RGBA") if ending == "png" else ())):
            path = folder / f"{mode}.{ending}"
            Image.fromarray(_picture()).convert(mode).save(path, **options)
            paths.append(path)
        return paths

    return make


def _look(path: Path) -> None:
    """Open a slide and read a part of each level, as an inspection does."""
    with open_slide(path) as slide:
        for level in range(len(slide.level_sizes)):
            slide.read_level(level, 0, 0, 64, 64)


def _tenx(folder: Path) -> list[Path]:
    path = folder / "filtered_feature_bc_matrix.h5"
    with h5py.File(path, "w") as file:
        matrix = file.create_group("matrix")
        matrix["barcodes"] = [b"AAAC-1", b"AAAG-1", b"AAAT-1"]
        matrix["shape"], matrix["data"] = [4, 3], np.arange(1, 6, dtype=np.int32)
        matrix["indices"], matrix["indptr"] = np.array([0, 2, 1, 3, 0]), np.array([0, 2, 4, 5])
        features = matrix.create_group("features")
        for name in ("id", "name"):
            features[name] = [f"G{number}".encode() for number in range(4)]
        features["feature_type"] = [b"Gene Expression"] * 4
    packed = folder / "packed.h5"
    with h5py.File(path) as source, h5py.File(packed, "w") as file:
        group = file.create_group("matrix")
        for name, item in source["matrix"].items():
            if isinstance(item, h5py.Group):
                source.copy(item, group, name)
            else:
                group.create_dataset(name, data=item[()], chunks=True, compression="gzip")
    return [path, packed]


def _hest(folder: Path) -> list[Path]:
    path = folder / "TENX1.h5ad"
    names = pd.DataFrame(index=[f"GENE{number}" for number in range(5)])
    places = pd.DataFrame(
        {"pxl_row_in_fullres": np.arange(4.0), "pxl_col_in_fullres": np.arange(4.0), "in_tissue": 1,
         "array_row": range(4), "array_col": range(4)}, index=[f"S{number}" for number in range(4)]
    )  # fmt: skip
    table = anndata.AnnData(np.arange(20, dtype=np.float32).reshape(4, 5), obs=places, var=names)
    table.obsm["spatial"] = np.arange(8.0).reshape(4, 2) * 100
    table.write_h5ad(path)
    return [path]


def _parquet(folder: Path) -> list[Path]:
    table = pl.DataFrame({
        "barcode": [f"s_008um_0000{number}_00001-1" for number in range(9)], "in_tissue": [1] * 9,
        "array_row": list(range(9)), "array_col": list(range(9)),
        "pxl_row_in_fullres": [10.0 * number for number in range(9)], "pxl_col_in_fullres": [5.0] * 9,
    })  # fmt: skip
    path, other = folder / "tissue_positions.parquet", folder / "plain.parquet"
    table.write_parquet(path)
    table.write_parquet(other, compression="uncompressed")
    text = folder / "tissue_positions.csv"
    table.write_csv(text)
    return [path, other, text]


def _features(folder: Path) -> list[Path]:
    path = folder / "patches.h5"
    patches = PatchFeatures(np.ones((6, 4), np.float32), np.arange(12.0).reshape(6, 2), 256.0)
    write_feature_h5(path, patches, attributes={"name": "S1", "level0_mpp": 0.5})
    return [path]


def _legacy(folder: Path) -> list[Path]:
    path = folder / "A1.tsv.gz"
    lines = [
        "\t".join(["", *(f"GENE{number}" for number in range(4))]),
        *(f"{row}x{row}\t1\t0\t3\t2" for row in range(5)),
    ]
    path.write_bytes(gzip.compress("\n".join(lines).encode(), mtime=0))
    spots = folder / "A1_selection.tsv"
    rows = [f"{row}\t{row}\t{row}.1\t{row}.1\t{row * 9}\t{row * 9}\t1\n" for row in range(5)]
    spots.write_text("x\ty\tnew_x\tnew_y\tpixel_x\tpixel_y\tselected\n" + "".join(rows))
    return [path]


def _lmdb(folder: Path) -> list[Path]:
    path = folder / "geometry.lmdb"
    with ArrayWriter(path, {"slide_id": "S1", "mpp": 0.5}) as writer:
        writer.put("spot/coords_um", np.arange(40.0).reshape(20, 2))
        writer.put("names", np.array(["ACTB", "µ"]))
        writer.commit()
    return [path]


def _read_all(path: Path) -> None:
    with ArrayFile(path) as file:
        file.verify()
        for name in file.names():
            file.read(name)


def _weights(folder: Path) -> list[Path]:
    state = {"conv.weight": torch.ones(3, 2), "conv.bias": torch.zeros(3)}
    safe, plain = folder / "model.safetensors", folder / "model.pt"
    save_file(state, safe)
    torch.save({"state_dict": state}, plain)
    old = folder / "old.bin"
    torch.save(state, old, _use_new_zipfile_serialization=False)
    return [safe, plain, old]


def _checkpoint(folder: Path) -> list[Path]:
    path = folder / "checkpoint.pt"
    torch.save({"epoch": 1, "random": {"cpu": torch.zeros(8, dtype=torch.uint8)}, "model": {"w": torch.ones(2)}}, path)
    return [path]


def _json(content: object, name: str) -> Callable[[Path], list[Path]]:
    def make(folder: Path) -> list[Path]:
        (folder / name).write_text(json.dumps(content, indent=2))
        return [folder / name]

    return make


def _run_json(folder: Path) -> list[Path]:
    path = folder / "run.json"
    config = json.loads(json.dumps(load_config(None, ["encoder.mode=frozen", "model.width=32"]).plain(), default=str))
    dims = {"spot": 8, "region": 8}
    path.write_text(json.dumps({"config": config, "backbone": "timm:test_resnet", "fine_dim": 8, "context_dims": dims,
                                "panel": {"id": ["G1", "G2"], "name": ["G1", "G2"]}}))  # fmt: skip
    save_file({"w": torch.ones(2)}, folder / "model.safetensors")
    return [path]


def _toml(folder: Path) -> list[Path]:
    path = folder / "recipe.toml"
    values = {"model": {"width": 64, "rounds": 2}, "optim": {"name": "adamw", "lr": 1e-3}, "seed": 3}
    path.write_text(f"# a recipe\n{tomli_w.dumps(values)}", encoding="utf-8")
    return [path]


def _extraction_toml(folder: Path) -> list[Path]:
    path = folder / "extract.toml"
    path.write_text('samples = "samples.csv"\n[geometry]\nbins = 300\ntargets = [8, 16]\n[embedding]\ntoken_grid = 2\n')
    return [path]


def _sheet(folder: Path) -> list[Path]:
    path = folder / "samples.csv"
    path.write_text("slide_id,image,counts,platform,mpp,patient\nS1,a.tif,outs,visium,0.5,P1\nS2,b.tif,outs,,,P2\n")
    return [path]


STORE = {
    "schema_version": 2,
    "created": "2026-01-01",
    "provenance": {},
    "samples": [{"slide_id": "S1", "patient": None}],
}
STUDY = {"title": "Fold 0", "rows": [{"group": "8", "title": "MagNet", "ours": True, "cells": ["a"]}], "config": {}}


def _read_store(path: Path) -> None:
    store = Store(path.parent)
    store.slide_ids()
    store.provenance()


def _parent(reader: Callable[[Path], object]) -> Callable[[Path], object]:
    return lambda path: reader(path.parent)


def _beside(reader: Callable[[Path], object], *names: str) -> Callable[[Path], object]:
    """Read a mutant in the company of whole files, which lie in the folder of the seeds."""

    def parse(path: Path) -> object:
        for name in names:
            if not (path.parent / name).exists():
                shutil.copy(path.parent.parent / "seeds" / name, path.parent / name)
        return reader(path)

    return parse


TARGETS = {target.name: target for target in (
    Target("TIFF", _tiffs, _look),
    Target("PNG", _flat("png"), _look),
    Target("JPEG", _flat("jpg", quality=80), _look),
    Target("10x h5", _tenx, read_tenx_h5),
    Target("HEST h5ad", _hest, hest.read),
    Target("positions", _parquet, read_positions),
    Target("feature h5", _features, read_feature_h5),
    Target("legacy tsv.gz", _legacy, _beside(legacy_st.read, "A1_selection.tsv")),
    Target("LMDB", _lmdb, _read_all),
    Target("weights", _weights, lambda path: read_weights(path, name="timm:test_resnet")),
    Target("checkpoint", _checkpoint, _parent(read_checkpoint)),
    Target("store.json", _json(STORE, "store.json"), _read_store),
    Target("study.json", _json(STUDY, "study.json"), _parent(read_record)),
    Target("run.json", _run_json, _beside(_parent(load_run), "model.safetensors")),
    Target("recipe of a fit", _toml, lambda path: load_config(path)),
    Target("recipe of an extraction", _extraction_toml, lambda path: load_extraction(path, {}, ())),
    Target("sample sheet", _sheet, read_samples),
)}  # fmt: skip

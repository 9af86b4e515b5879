"""The geometry file of a slide: its levels without any backbone, as arrays of the store.

genes/id, genes/name                        (G,) text
<level>/barcode                             (N,) text
<level>/centres_um                          (N, 2) float64, (x, y) from the slide's top-left
<level>/edges                               (N, k) int32, rows of the same level, nearest first
<level>/pair/<context>                      (N,) int32, row of the context level
<level>/counts/{indptr,indices,values}      raw counts, CSR over the genes
<level>/pixels                              (N, p, p, 3) uint8 at the working µm/px, 0.25 unless the run said another

A geometry without pixels says so in its header, and has the digest of the one with them: nothing else differs, and
features of the one are those of the other.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from cache.fingerprint import digest, file_fingerprint
from cache.reader import ArrayFile
from cache.schema import CONTENT_VERSION, encode_text
from cache.writer import ArrayWriter
from extract.config import RunConfig
from extract.count_rows import CountRows
from extract.levels import Level
from extract.readers import count_files, space_ranger_hd
from extract.resolution import ResolvedMpp
from magnet_core.records import Genes, Sample

# N rows, G genes, k neighbours, p pixels

PIXELS = "pixels"  # in the header, where there are none


def geometry_settings(sample: Sample, config: RunConfig) -> dict[str, Any]:
    """All that decides the bytes of a slide's geometry file, known without reading its counts."""
    counts = [] if sample.counts is None else count_files(sample)
    where: dict[str, Any] = {} if sample.tissue is None else {"tissue": file_fingerprint(sample.tissue)}
    if sample.like is not None:
        where["like"] = [file_fingerprint(path) for path in space_ranger_hd.place_files(sample.like)]
    return where | {
        "schema": CONTENT_VERSION,
        **config.deciding("geometry"),
        "slide_id": sample.slide_id,
        "platform": sample.platform,
        "stated_mpp": sample.mpp,
        "image": file_fingerprint(sample.image),
        "counts": [file_fingerprint(path) for path in counts],
    }


def geometry_header(
    settings: Mapping[str, Any], sample: Sample, resolution: ResolvedMpp, levels: list[Level], *, pixels: bool = True
) -> dict[str, Any]:
    """Return the header of a geometry file: settings and their digest, and what was found on the slide.

    `pixels` says whether those of the fine levels are kept.
    """
    without = {} if pixels else {PIXELS: False}  # so that with them it is the header of before
    return without | {
        "kind": "geometry",
        "digest": digest(settings),
        "settings": dict(settings),
        "image": str(sample.image),
        "patient": sample.patient,
        "targets": list(settings["targets"]),
        "mpp": resolution.mpp,
        "mpp_source": resolution.source,
        "levels": {level.name: {"patch_um": level.patch_um, "pixels": level.pixels} for level in levels},
    }


def write_levels(writer: ArrayWriter, levels: list[Level], genes: Genes) -> None:
    """Write all arrays of the levels but their pixels, which are streamed."""
    put_all(writer, {"genes/id": genes.ids, "genes/name": genes.names})
    for level in levels:
        arrays = {"barcode": level.barcodes, "centres_um": level.centres_um, "edges": level.edges}
        arrays |= {f"pair/{context}": rows.astype(np.int32) for context, rows in level.pairs.items()}
        put_all(writer, {f"{level.name}/{name}": values for name, values in arrays.items()})
        if level.counts is not None:
            put_counts(writer, f"{level.name}/counts", level.counts)


def put_counts(writer: ArrayWriter, prefix: str, counts: CountRows) -> None:
    """Declare and write raw counts; genes and values are gathered a block at a time."""
    row_ends = counts.row_ends()
    put_all(writer, {f"{prefix}/indptr": row_ends})
    names = f"{prefix}/indices", f"{prefix}/values"
    for name in names:
        writer.declare(name, (int(row_ends[-1]),), np.int32)
    missing = {name: set(writer.missing_blocks(name)) for name in names}
    for block in sorted(set.union(*missing.values())):
        stored = writer.block_rows(names[0], block)
        for name, values in zip(names, counts.stored(row_ends, stored.start, stored.stop), strict=True):
            if block in missing[name]:
                writer.put_block(name, block, values)


def read_levels(geometry: ArrayFile) -> list[Level]:
    """Read back what the embeddings of another backbone need: names, patch sizes, centres."""
    return [
        Level(
            name,
            facts["patch_um"],
            geometry.read(f"{name}/centres_um"),
            geometry.read(f"{name}/barcode"),
            geometry.read(f"{name}/edges"),
            pixels=facts["pixels"],
        )
        for name, facts in geometry.header["levels"].items()
    ]


def holds_pixels(path: Path) -> bool:
    """Whether a geometry has the pixels of its fine levels."""
    with ArrayFile(path) as geometry:
        return bool(geometry.header.get(PIXELS, True))


def header_with_pixels(header: Mapping[str, Any]) -> dict[str, Any]:
    """Return the header of a geometry that gets its pixels: that of one that had them from the beginning."""
    return {name: value for name, value in header.items() if name != PIXELS}


def copy_arrays(stored: ArrayFile, writer: ArrayWriter) -> None:
    """Copy all arrays of a file that is intact, block by block."""
    stored.require_intact(stored.names())
    for name in stored.names():
        spec = stored.spec(name)
        dtype = f"U{np.dtype(spec.dtype).itemsize}" if spec.text else spec.dtype
        writer.declare(name, spec.shape, dtype, block_rows=spec.block_rows)
        for block in writer.missing_blocks(name):
            writer.put_block(name, block, stored.block(name, block))


def put_all(writer: ArrayWriter, arrays: Mapping[str, np.ndarray]) -> None:
    """Declare and write whole arrays."""
    for name, values in arrays.items():
        dtype = values.dtype
        if dtype.kind == "U":  # a store holds UTF-8, which takes more bytes than characters outside ASCII
            dtype = np.dtype(f"U{max(dtype.itemsize // 4, encode_text(values).itemsize)}")
        writer.declare(name, values.shape, dtype)
        writer.put(name, values)

"""Which matrix of counts lies in a folder of Space Ranger's, and reading it: h5 or text, filtered or raw.

In: a folder that holds `filtered_feature_bc_matrix.h5`, a folder `filtered_feature_bc_matrix/` with the three files of
`extract.readers.mtx`, or the raw one of either. Out: its files, and the matrix. The raw matrix has all barcodes, those
out of tissue too; the positions tell which are in it. It is read where there is no filtered one.
"""

from collections.abc import Sequence
from pathlib import Path

from extract.readers.mtx import mtx_files, read_mtx
from extract.readers.outs_files import files_named
from extract.readers.tenx_h5 import TenxMatrix, read_tenx_h5
from magnet_core.errors import MagnetError

KINDS = ("filtered_feature_bc_matrix", "raw_feature_bc_matrix")
LOOKS_FOR = "filtered_feature_bc_matrix.h5, the folder filtered_feature_bc_matrix, or the raw one of either"


def has_matrix(folder: Path) -> bool:
    """Tell whether there is any matrix, or several with prefixes, among which `matrix_files` cannot choose."""
    return any(files_named(folder, f"{kind}.h5") or _texts(folder, kind) for kind in KINDS)


def matrix_files(folder: Path) -> list[Path]:
    """List the file or files of the one matrix to read; none, or several with prefixes, are an error."""
    found: list[Path] = []
    for kind in KINDS:
        found = files_named(folder, f"{kind}.h5")
        if len(found) == 1:
            return found
        if not found and (texts := _texts(folder, kind)):
            return texts
        if found:
            break
    raise MagnetError(
        folder,
        expected=f"the file {LOOKS_FOR}",
        found=", ".join(file.name for file in found) or "no such file",
        remedy="give the output folder of one slide, with the names that Space Ranger gave its files",
    )


def read_matrix(files: Sequence[Path]) -> TenxMatrix:
    """Read what `matrix_files` has listed."""
    return read_tenx_h5(files[0]) if len(files) == 1 else read_mtx(files)


def _texts(folder: Path, kind: str) -> list[Path]:
    """List the three files of a matrix as text, which archives also hand out without their folder."""
    return mtx_files(folder / kind) or (mtx_files(folder) if kind == KINDS[0] else [])

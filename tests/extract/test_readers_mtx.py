"""Matrices as text, raw matrices and gzipped positions of Space Ranger say what the filtered h5 file says."""

import gzip
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest
from scipy import io, sparse

from extract.readers import count_files, detect_platform, read_counts
from magnet_core.errors import MagnetError
from magnet_core.records import Sample, SlideCounts

COUNTS = np.array([[3, 0, 1], [0, 2, 0], [5, 0, 0], [0, 0, 4]])  # spots × features, the third a protein
BARCODES = ["AAA-1", "CCC-1", "GGG-1", "TTT-1"]  # the last is out of tissue
FEATURES = "E1\tTP53\tGene Expression\nE2\tÅß\tGene Expression\tchr1\t1\t9\nE3\tCD3\tAntibody Capture\n"
POSITIONS = "".join(
    f"{name},{int(row < 3)},{row},{row % 2},{100 * row},{50 * row}\n" for row, name in enumerate(BARCODES)
)


def write_mtx(folder: Path, *, pack: bool = True, real: bool = False) -> Path:
    folder.mkdir(parents=True)
    entries = sparse.coo_matrix(COUNTS.T.astype(float if real else int))
    io.mmwrite(folder / "matrix.mtx", entries, comment='metadata_json: {"software_version": "spaceranger"}')
    (folder / "barcodes.tsv").write_text("\n".join(BARCODES) + "\n")
    (folder / "features.tsv").write_text(FEATURES.replace("\tchr1\t1\t9", ""), encoding="utf-8")
    if pack:
        for file in list(folder.iterdir()):
            file.with_name(f"{file.name}.gz").write_bytes(gzip.compress(file.read_bytes()))
            file.unlink()
    return folder


def write_h5(path: Path) -> None:
    columns = sparse.csc_matrix(COUNTS.T)
    with h5py.File(path, "w") as file:
        for name in ("data", "indices", "indptr"):
            file[f"matrix/{name}"] = getattr(columns, name)
        file["matrix/shape"], file["matrix/barcodes"] = np.array(columns.shape), np.array(BARCODES, "S")
        for column, name in enumerate(("id", "name", "feature_type")):
            values = [line.split("\t")[column].encode() for line in FEATURES.splitlines()]
            file[f"matrix/features/{name}"] = np.array(values)


@pytest.fixture
def outs(tmp_path: Path) -> Path:
    (tmp_path / "spatial").mkdir()
    (tmp_path / "spatial" / "tissue_positions_list.csv").write_text(POSITIONS)
    return tmp_path


def read(path: Path) -> SlideCounts:
    return read_counts(Sample("P1", path, counts=path))


def assert_read(outs: Path) -> None:
    assert detect_platform(outs) == "visium"
    slide = read(outs)
    assert slide.spots is not None
    assert slide.spots.counts is not None
    assert slide.spots.barcodes.tolist() == BARCODES[:3]
    assert slide.spots.centres_px.tolist() == [[0, 0], [50, 100], [100, 200]]
    assert (slide.genes.ids.tolist(), slide.genes.names.tolist()) == (["E1", "E2"], ["TP53", "Åß"])
    assert slide.spots.counts.dtype == np.int32
    np.testing.assert_array_equal(slide.spots.counts.toarray(), COUNTS[:3, :2])


@pytest.mark.parametrize(
    "write",
    [
        lambda outs: write_h5(outs / "filtered_feature_bc_matrix.h5"),
        lambda outs: write_h5(outs / "raw_feature_bc_matrix.h5"),
        lambda outs: write_mtx(outs / "filtered_feature_bc_matrix"),
        lambda outs: write_mtx(outs / "filtered_feature_bc_matrix", pack=False),
        lambda outs: write_mtx(outs / "filtered_feature_bc_matrix", real=True),
        lambda outs: write_mtx(outs / "raw_feature_bc_matrix"),
        lambda outs: [file.rename(outs / f"GSM1_{file.name}") for file in write_mtx(outs / "m").iterdir()],
    ],
    ids=["h5", "raw h5", "text", "unpacked", "real", "raw text", "prefixed"],
)
def test_each_form_of_the_matrix_is_read(outs: Path, write: Callable[[Path], object]) -> None:
    write(outs)
    assert_read(outs)


def test_gzipped_positions_are_read(outs: Path) -> None:
    write_h5(outs / "filtered_feature_bc_matrix.h5")
    plain = outs / "spatial" / "tissue_positions_list.csv"
    header = "barcode,in_tissue,array_row,array_col,pxl_row_in_fullres,pxl_col_in_fullres\n"
    plain.with_name("tissue_positions.csv.gz").write_bytes(gzip.compress((header + POSITIONS).encode()))
    plain.unlink()
    assert_read(outs)


def test_files_are_those_of_the_filtered_matrix_and_h5_before_text(outs: Path) -> None:
    def names() -> list[str]:
        return [file.name for file in count_files(Sample("P1", outs, counts=outs))]

    write_mtx(outs / "raw_feature_bc_matrix", pack=False)
    assert names() == ["matrix.mtx", "barcodes.tsv", "features.tsv", "tissue_positions_list.csv"]
    write_mtx(outs / "filtered_feature_bc_matrix")
    assert names() == ["matrix.mtx.gz", "barcodes.tsv.gz", "features.tsv.gz", "tissue_positions_list.csv"]
    write_h5(outs / "filtered_feature_bc_matrix.h5")
    assert names() == ["filtered_feature_bc_matrix.h5", "tissue_positions_list.csv"]


@pytest.mark.parametrize(
    ("before", "after", "said"),
    [
        ("matrix coordinate", "matrix array", "found one that begins '%%MatrixMarket matrix array"),
        ("3 4 5\n", "3 4 900000000000\n", "900,000,000,000 entries stated in"),
        ("3 4 5\n", "3 5 5\n", "3 × 5 for 3 features and 4 barcodes"),
        ("3 4 5\n", "3 4 4\n", "found 5 entries, 4 stated"),
        ("2 2 2\n", "2 5 2\n", "found entries outside the matrix"),
        ("2 2 2\n", "0 2 2\n", "found entries outside the matrix"),
        ("2 2 2\n", "1 1 2\n", "found 1 places twice"),
        ("2 2 2\n", "2 2 -2\n", "found -2: they are normalised"),
        ("2 2 2\n", "2 2 nan\n", "found nan: they are normalised"),
        ("2 2 2\n", "2 2 1099511627776\n", r"at most 1,000,000 molecules of a gene in one place, found 1\.1e\+12"),
        ("2 2 2\n", "2 2 x\n", "could not parse"),
        ("2 2 2\n", "2 2\n", "entries without a value"),
    ],
)
def test_a_wrong_matrix_is_one_line(outs: Path, before: str, after: str, said: str) -> None:
    path = write_mtx(outs / "filtered_feature_bc_matrix", pack=False) / "matrix.mtx"
    text = path.read_text()
    assert before in text
    path.write_text(text.replace(before, after))
    with pytest.raises(MagnetError, match=f"{path.name}: .*{said}"):
        read(outs)


def test_bytes_that_crash_other_readers_are_one_line(outs: Path) -> None:
    """A byte that is no UTF-8 and a row of blanks ended the process in scipy.io.mmread (1.17)."""
    path = write_mtx(outs / "filtered_feature_bc_matrix", pack=False) / "matrix.mtx"
    path.write_bytes(path.read_bytes().replace(b"2 2 2\n", b"2 2 2\xff      \n"))
    with pytest.raises(MagnetError, match="could not parse"):
        read(outs)


def test_a_bomb_is_not_unpacked(outs: Path) -> None:
    folder = write_mtx(outs / "filtered_feature_bc_matrix")
    (folder / "matrix.mtx.gz").write_bytes(gzip.compress(bytes(80 << 20)))
    with pytest.raises(MagnetError, match="found more than 64 MiB in it"):
        read(outs)
    (folder / "matrix.mtx.gz").write_bytes(gzip.compress(b"%%MatrixMarket")[:-9])
    with pytest.raises(MagnetError, match="Compressed file ended"):
        read(outs)

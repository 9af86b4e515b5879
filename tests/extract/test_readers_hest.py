"""HEST files: every storage of X gives the same counts, the µm/px comes from the metadata, normalised X is refused."""

from pathlib import Path

import anndata
import h5py
import numpy as np
import pandas as pd
import pytest
from scipy import sparse

from extract.readers import count_files, detect_platform, read_counts
from magnet_core.errors import MagnetError
from magnet_core.records import Sample, SlideCounts

COUNTS = np.random.default_rng(0).poisson(0.7, (40, 5)).astype(np.float32)
CENTRES = np.random.default_rng(1).uniform(0, 1e4, (40, 2))
SYMBOLS = ["TP53", "ACTB", "MATR3", "CD3", "MYC"]


def write(root: Path, x: np.ndarray | sparse.spmatrix = COUNTS, *, symbols: list[str] = SYMBOLS) -> Path:
    (root / "st").mkdir(exist_ok=True)
    path = root / "st" / "TENX1.h5ad"
    obs = pd.DataFrame(index=[f"spot{i}" for i in range(len(CENTRES))])
    anndata.AnnData(x, obs, pd.DataFrame(index=symbols), obsm={"spatial": CENTRES}).write_h5ad(path)
    return path


def read(path: Path) -> SlideCounts:
    return read_counts(Sample("P1", path, counts=path))


@pytest.mark.parametrize("stored", [np.asarray, sparse.csr_matrix, sparse.csc_matrix])
def test_counts_and_centres_are_what_was_written(tmp_path: Path, stored: type) -> None:
    path = write(tmp_path, stored(COUNTS))
    assert detect_platform(path) == "hest"
    slide = read(path)
    assert slide.spots is not None
    assert slide.spots.counts is not None
    np.testing.assert_array_equal(slide.spots.counts.toarray(), COUNTS)
    assert slide.spots.counts.dtype == np.int32
    np.testing.assert_array_equal(slide.spots.centres_px, CENTRES)
    assert list(slide.spots.barcodes[:2]) == ["spot0", "spot1"]
    assert list(slide.genes.names) == SYMBOLS
    assert slide.mpp is None
    assert slide.mpp_source == "no metadata table HEST*.csv lies beside TENX1.h5ad"


def test_ids_are_taken_where_they_are_and_names_made_unique(tmp_path: Path) -> None:
    path = tmp_path / "A.h5ad"
    var = pd.DataFrame({"gene_ids": list("abcde")}, index=["X", "Y", "X", "Z", "X"])
    with pytest.warns(UserWarning, match="not unique"):
        written = anndata.AnnData(COUNTS, var=var, obsm={"spatial": CENTRES})
    written.write_h5ad(path)
    genes = read(path).genes
    assert list(genes.ids) == list("abcde")
    assert list(genes.names) == ["X", "Y", "X-1", "Z", "X-2"]


def test_text_may_be_categorical_or_nullable(tmp_path: Path) -> None:
    path = tmp_path / "A.h5ad"
    ids = pd.Categorical(["b", "a", "b", "c", "d"])
    obs = pd.DataFrame(index=[f"spot{i}" for i in range(len(CENTRES))])
    var = pd.DataFrame({"gene_ids": ids}, index=SYMBOLS)
    anndata.AnnData(COUNTS, obs, var, obsm={"spatial": CENTRES}).write_h5ad(path)
    assert list(read(path).genes.ids) == ["b", "a", "b-1", "c", "d"]
    with h5py.File(path, "a") as file:
        del file["var/gene_ids"]
        column = file["var"].create_group("gene_ids")
        column.attrs["encoding-type"] = "nullable-string-array"
        column["values"], column["mask"] = list("abcde"), [False] * 5
    assert list(read(path).genes.ids) == list("abcde")


def test_the_resolution_is_that_of_the_sample_in_the_metadata(tmp_path: Path) -> None:
    path = write(tmp_path)
    table = tmp_path / "HEST_v1_1_0.csv"
    table.write_text("dataset,id,pixel_size_um_estimated,note\nA,TENX10,0.9,\nB,TENX1,0.2125,x\nC,TENX2,,\n")
    slide = read(path)
    assert (slide.mpp, slide.mpp_source) == (0.2125, "pixel_size_um_estimated in HEST_v1_1_0.csv")
    assert count_files(Sample("P1", path, counts=path)) == [path, table]
    other = path.rename(path.with_name("TENX2.h5ad"))
    assert read(other).mpp is None
    assert read(other).mpp_source == "HEST_v1_1_0.csv states none for 'TENX2'"
    table.write_text("name,size\nTENX1,1\n")
    with pytest.raises(MagnetError, match="a CSV with the columns id and pixel_size_um_estimated"):
        read(other)


def write_table(path: Path, mpp: str) -> Path:
    path.write_text(f"id,pixel_size_um_estimated\nTENX1,{mpp}\n")
    return path


def test_the_newest_table_wins_and_a_contradiction_is_warned_of(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The oldest used to win, as its name comes first: 0.5 where the newest says 0.686."""
    path = write(tmp_path)
    write_table(tmp_path / "HEST_v1_0_0.csv", "0.5")
    write_table(tmp_path / "HEST_v1_9_0.csv", "0.686")
    newest = write_table(tmp_path / "HEST_v1_10_0.csv", "0.6861")
    assert count_files(Sample("P1", path, counts=path)) == [path, newest]
    slide = read(path)
    assert (slide.mpp, slide.mpp_source) == (0.6861, "pixel_size_um_estimated in HEST_v1_10_0.csv")
    assert "HEST_v1_10_0.csv states 0.6861, which is taken; HEST_v1_0_0.csv states 0.5" in caplog.text
    assert "HEST_v1_9_0.csv" not in caplog.text  # which says nearly the same
    nearer = write_table(tmp_path / "st" / "HEST_v1_10_0.csv", "0.7")
    assert count_files(Sample("P1", path, counts=path)) == [path, nearer]
    without_version = write_table(tmp_path / "st" / "HEST.csv", "0.9")
    assert read(path).mpp == 0.7
    without_version.write_text("neither,column\n1,2\n")
    assert read(path).mpp == 0.7
    assert "HEST.csv: expected a CSV with the columns id" in caplog.text


@pytest.mark.parametrize("mpp", ["0", "-0.5", "1e308", "inf"])
def test_a_resolution_that_no_scan_has_is_refused(tmp_path: Path, mpp: str) -> None:
    path = write(tmp_path)
    write_table(tmp_path / "HEST_v1_1_0.csv", mpp)
    with pytest.raises(MagnetError, match="a pixel_size_um_estimated of 'TENX1' between"):
        read(path)


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (np.log1p(COUNTS), r"raw counts in X, whole numbers from 0 on, found 0\.6931: they are normalised or scaled"),
        (sparse.csr_matrix(COUNTS - 1), "found -1: they are normalised or scaled"),
        (np.where(COUNTS > 0, np.nan, 0), "found nan: they are normalised or scaled"),
    ],
)
def test_an_x_that_is_not_raw_is_refused(tmp_path: Path, x: np.ndarray, message: str) -> None:
    with pytest.raises(MagnetError, match=message):
        read(write(tmp_path, x))


def test_other_wrong_files(tmp_path: Path) -> None:
    path = write(tmp_path)
    with h5py.File(path, "a") as file:
        file["obs"][file["obs"].attrs["_index"]][1] = "spot0"
    with pytest.raises(MagnetError, match="found 1 repeated names of spots"):
        read(path)
    with h5py.File(path, "a") as file:
        del file["obsm/spatial"]
    with pytest.raises(MagnetError, match=r"an AnnData file with X, obs, var and obsm\['spatial'\]"):
        read(path)
    path.write_bytes(path.read_bytes()[:500])
    with pytest.raises(MagnetError, match=r"TENX1\.h5ad: expected an AnnData file"):
        read(path)
    with pytest.raises(MagnetError, match="expected an AnnData file .h5ad, found none"):
        read_counts(Sample("P1", tmp_path, counts=tmp_path, platform="hest"))

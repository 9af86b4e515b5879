"""Counts that are damaged, absurd or made to do harm: one line for their slide, and the others go on."""

import gzip
import json
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import anndata
import h5py
import numpy as np
import pandas as pd
import polars as pl
import pytest
from PIL import Image
from scipy import sparse
from typer.testing import CliRunner

from cache.reader import ArrayFile
from cache.writer import ArrayWriter
from extract.cli import app
from extract.geometry import put_all
from extract.readers import read_counts, tables
from extract.readers.tables import check_parquet, look_at_parquet
from magnet_core.errors import MagnetError
from magnet_core.records import Sample, SlideCounts

MPP, SIDE = 0.5, 12  # µm/px, and bins along each side of the tissue
NUM_BINS = SIDE * SIDE
PARQUET, MATRIX = "tissue_positions.parquet", "filtered_feature_bc_matrix.h5"


def write_hd(outs: Path, *, positions: dict[str, pl.Series] | None = None, **datasets: Any) -> Path:
    """Write 8 µm bins; `positions` replaces columns, `datasets` replaces parts of the matrix, `/` written as `__`."""
    folder = outs / "binned_outputs" / "square_008um"
    (folder / "spatial").mkdir(parents=True, exist_ok=True)
    row, column = (axis.ravel() for axis in np.mgrid[:SIDE, :SIDE])
    barcodes = [f"s_008um_{r:05d}_{c:05d}-1" for r, c in zip(row, column, strict=True)]
    table = pl.DataFrame(
        {
            "barcode": barcodes,
            "in_tissue": np.ones(NUM_BINS, np.int64),
            "array_row": row,
            "array_col": column,
            "pxl_row_in_fullres": 100 + (row + 0.5) * 8 / MPP,
            "pxl_col_in_fullres": 100 + (column + 0.5) * 8 / MPP,
        }
    )
    table.with_columns(**(positions or {})).write_parquet(folder / "spatial" / PARQUET)
    write_factors(folder)
    parts = {
        "data": np.arange(1, 2 * NUM_BINS + 1, dtype=np.int32) % 40 + 1,
        "indices": np.tile([0, 1], NUM_BINS),
        "indptr": np.arange(NUM_BINS + 1) * 2,
        "shape": np.array([2, NUM_BINS]),
        "barcodes": np.array(barcodes, "S"),
        "features/id": np.array(["E1", "E2"], "S"),
        "features/name": np.array(["TP53", "ACTB"], "S"),
        "features/feature_type": np.array(["Gene Expression"] * 2, "S"),
    }
    with h5py.File(folder / MATRIX, "w") as file:
        for name, values in (parts | {name.replace("__", "/"): values for name, values in datasets.items()}).items():
            file[f"matrix/{name}"] = values
    return folder


def write_factors(folder: Path, **changes: Any) -> None:
    factors = {"microns_per_pixel": MPP, "bin_size_um": 8.0, "spot_diameter_fullres": 8 / MPP} | changes
    (folder / "spatial" / "scalefactors_json.json").write_text(json.dumps(factors))


def read(path: Path) -> SlideCounts:
    return read_counts(Sample("P1", path, counts=path))


def assert_one_line(path: Path, said: str) -> None:
    with pytest.raises(MagnetError, match=said) as caught:
        read(path)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 1500


def replaced(values: np.ndarray, place: int, value: Any) -> np.ndarray:
    values = values.copy()
    values[place] = value
    return values


INDICES, INDPTR, VALUES = np.tile([0, 1], NUM_BINS), np.arange(NUM_BINS + 1) * 2, np.ones(2 * NUM_BINS)


@pytest.mark.parametrize(
    ("datasets", "said"),
    [
        ({"data": replaced(VALUES, 7, 0.5)}, r"found 0\.5: they are normalised or scaled"),
        ({"data": replaced(VALUES, 7, np.nan)}, "found nan: they are normalised"),
        ({"data": replaced(VALUES, 7, np.inf)}, "found inf"),
        ({"data": replaced(VALUES.astype(int), 7, 1 << 40)}, "at most 1,000,000 molecules of a gene in one place"),
        ({"data": replaced(VALUES.astype(int), 7, -(1 << 40))}, "whole numbers from 0 on, found -2"),
        ({"data": VALUES.astype("S4")}, "values of type"),
        ({"data": VALUES.astype(int).reshape(-1, 2)}, r"matrix/data of shape \(144, 2\)"),
        ({"indices": replaced(INDICES, 7, 1 << 40)}, "indices outside the features"),
        ({"indices": replaced(INDICES, 7, -1)}, "indices outside the features"),
        ({"indices": INDICES.astype(float)}, "indices that are no whole numbers"),
        ({"indptr": replaced(INDPTR, 7, 99)}, "an indptr that does not fit"),
        ({"indptr": replaced(INDPTR, -1, 1 << 40)}, "an indptr that does not fit"),
        ({"shape": np.array([1 << 40, NUM_BINS])}, "shape"),
        ({"features__name": ["TP53", "A" * 200_000]}, "a text of 200000 bytes"),
        ({"features__name": ["TP53", "A" * 300]}, "at most 256 characters, found one of 300"),
        ({"features__name": [b"TP53", b"\xff\xfe"]}, "can't decode byte 0xff"),
        ({"features__name": ["TP53"]}, "a consistent|an id, a name and a type of each feature, found 2, 1 and 2"),
        ({"features__name": np.arange(2)}, "a 10x feature-barcode matrix"),
        ({"barcodes": np.array([f"AAAC{i}-1" for i in range(NUM_BINS)], "S")}, "found 144 of 144 that are written in"),
        ({"barcodes": np.array([f"s_016um_{i:05d}_00000-1" for i in range(NUM_BINS)], "S")}, "barcodes of 8 µm bins"),
        ({"barcodes": np.array(["s_008um_00001_00002-1"] * NUM_BINS, "S")}, "each barcode once in the matrix"),
        ({"data": np.zeros(2 * NUM_BINS, np.int32)}, "counts of the 8 µm bins in tissue, found none at all in 144"),
    ],
)
def test_a_matrix_that_cannot_be(tmp_path: Path, datasets: dict[str, Any], said: str) -> None:
    write_hd(tmp_path, **datasets)
    assert_one_line(tmp_path, said)


@pytest.mark.parametrize(
    ("column", "value", "said"),
    [
        ("in_tissue", None, "in_tissue between 0 and 1, found 1 of 144 rows with other values, such as nothing"),
        ("in_tissue", float("nan"), "columns barcode, in_tissue"),
        ("in_tissue", 7, "in_tissue between 0 and 1, .* such as 7"),
        ("pxl_row_in_fullres", None, "pxl_row_in_fullres between .* such as nothing"),
        ("pxl_col_in_fullres", float("nan"), "pxl_col_in_fullres between .* such as nan"),
        ("pxl_col_in_fullres", float("inf"), "such as inf"),
        ("pxl_col_in_fullres", 1e308, r"such as 1e\+308"),
        ("array_row", -1, "array_row between 0 and 99,999, .* such as -1"),
        ("array_col", 1 << 40, "columns barcode, in_tissue"),
        ("barcode", None, "none for 1 of 144"),
        ("barcode", "A" * 200_000, "a text of 200,000 bytes in column 'barcode'"),
    ],
)
def test_positions_that_cannot_be(tmp_path: Path, column: str, value: Any, said: str) -> None:
    table = pl.read_parquet(write_hd(tmp_path) / "spatial" / PARQUET)
    values = table[column].to_list()
    values[5] = value
    write_hd(tmp_path, positions={column: pl.Series(values, strict=False)})
    assert_one_line(tmp_path, said)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ({"microns_per_pixel": 0}, "microns_per_pixel 0,"),
        ({"microns_per_pixel": -0.5}, r"microns_per_pixel -0\.5"),
        ({"microns_per_pixel": float("nan")}, "microns_per_pixel nan"),
        ({"microns_per_pixel": 1e308, "spot_diameter_fullres": 8e-308}, r"microns_per_pixel 1e\+308"),
        ({"microns_per_pixel": 1e-9, "spot_diameter_fullres": 8e9}, "microns_per_pixel 1e-09"),
        ({"microns_per_pixel": int("9" * 400)}, "found OverflowError"),
        ({"microns_per_pixel": [0.5]}, "found TypeError"),
        ("[" * 100_000, "lists too deep to read"),
        ("[1]", "found TypeError"),
        ('{"microns_per_pixel": ' + "9" * 5000 + "}", "Exceeds the limit"),
        ("<!doctype html><html>", "web page"),
        ("", "0 bytes"),
    ],
)
def test_scale_factors_that_cannot_be(tmp_path: Path, content: dict[str, Any] | str, said: str) -> None:
    folder = write_hd(tmp_path)
    if isinstance(content, dict):
        write_factors(folder, **content)
    else:
        (folder / "spatial" / "scalefactors_json.json").write_text(content)
    assert_one_line(tmp_path, said)


def test_whole_numbers_stored_as_floating_point_are_counts(tmp_path: Path) -> None:
    write_hd(tmp_path)
    before = read(tmp_path).bins[8].counts
    assert before is not None
    for kind in (np.float64, np.float32, np.uint16, np.int64):
        write_hd(tmp_path, data=before.data.astype(kind))
        after = read(tmp_path).bins[8].counts
        assert after is not None
        assert after.dtype == np.int32
        assert (after != before).nnz == 0


def test_names_outside_ascii_reach_the_store_and_come_back(tmp_path: Path) -> None:
    names = ["β-actin", "基因"]
    write_hd(tmp_path, features__name=np.array([name.encode() for name in names]))
    genes = read(tmp_path).genes
    assert genes.names.tolist() == names
    with ArrayWriter(tmp_path / "geometry.lmdb", {}) as writer:
        put_all(writer, {"genes/name": genes.names, "genes/id": genes.ids})
        writer.commit()
    with ArrayFile(tmp_path / "geometry.lmdb") as stored:
        assert stored.read("genes/name").tolist() == names
        assert stored.read("genes/id").tolist() == ["E1", "E2"]


def test_a_parquet_file_of_another_kind(tmp_path: Path) -> None:
    path = write_hd(tmp_path) / "spatial" / PARQUET
    whole = path.read_bytes()
    for damaged in (whole[:4] + b"\xff" * 200 + whole[204:], whole[:-40] + whole[-8:], b"PAR1" + bytes(99) + b"PAR1"):
        path.write_bytes(damaged)
        assert_one_line(tmp_path, r"tissue_positions\.parquet: expected a parquet file with the columns barcode")
    pl.DataFrame({"a": [1]}).write_parquet(path)
    assert_one_line(tmp_path, "expected a parquet file with the columns barcode")
    pl.read_parquet(BytesIO(whole)).with_columns(in_tissue=pl.lit([1, 2])).write_parquet(path)
    assert_one_line(tmp_path, "'in_tissue' of type List")


def test_rows_that_no_file_of_this_size_holds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs of one value take no bytes, so that kilobytes may stand for any number of rows."""
    path = tmp_path / "a.parquet"
    pl.DataFrame({"qv": np.ones(3_000_000)}).write_parquet(path, compression="zstd")
    assert path.stat().st_size < 300_000
    with pytest.raises(MagnetError, match=r"found 3,000,000 rows"):
        check_parquet(path, ["qv"], expected="a table", remedy="copy it again")
    monkeypatch.setattr(tables, "MOST_ROWS", 3_000_000)
    look_at_parquet(str(path), ["qv", "absent"])


def test_every_slide_but_the_bad_one_is_inspected(tmp_path: Path) -> None:
    """Empty in_tissue and pixel columns used to end `extract inspect` with a traceback, and all slides with it."""
    Image.fromarray(np.full((500, 500, 3), (200, 120, 170), np.uint8)).save(tmp_path / "slide.png")
    broken = {"empty": "in_tissue", "nowhere": "pxl_row_in_fullres"}
    for name in ("good", "empty", "nowhere", "nothing"):
        nulls = {broken[name]: pl.lit(None, pl.Float64)} if name in broken else {}
        zeros = {"data": np.zeros(2 * NUM_BINS, np.int32)} if name == "nothing" else {}
        write_hd(tmp_path / name, positions=nulls, **zeros)  # type: ignore[arg-type]
    rows = [f"{name},slide.png,{name},visium_hd" for name in ("empty", "nowhere", "nothing", "good")]
    (tmp_path / "samples.csv").write_text("\n".join(["slide_id,image,counts,platform", *rows]) + "\n")
    place = ["--samples", str(tmp_path / "samples.csv"), "--out", str(tmp_path / "pictures")]
    result = CliRunner().invoke(app, ["inspect", *place])
    assert result.exit_code == 1
    empty, nowhere, nothing = (line for line in result.stderr.splitlines() if ": failed: " in line)
    assert "in_tissue between 0 and 1, found 144 of 144 rows" in empty
    assert "pxl_row_in_fullres between" in nowhere
    assert "found none at all in 144 of them" in nothing
    assert "good · patient good · space_ranger_hd" in result.stdout


Change = Callable[[h5py.File], object]


def set_sparse(name: str, place: int, value: Any) -> Change:
    return lambda file: file[f"X/{name}"].__setitem__(place, value)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (set_sparse("indices", 3, 99), "X with indices outside of it"),
        (set_sparse("indices", 3, -1), "X with indices outside of it"),
        (set_sparse("indptr", 3, 99), "X with an indptr that does not fit"),
        (set_sparse("data", 3, 2.0**40), "at most 1,000,000 molecules"),
        (set_sparse("data", 3, np.inf), "found inf"),
        (lambda file: file["X"].attrs.update({"shape": [1 << 40, 5]}), r"X of shape \(1099511627776, 5\) for 40 spots"),
        (lambda file: file["X"].attrs.update({"encoding-type": "coo"}), "X of encoding 'coo'"),
        (lambda file: file["obs"].attrs.update({"_index": "nothing"}), "'nothing'"),
        (lambda file: file["obs"].attrs.update({"_index": 7}), "no part 'obs/{_index}/'"),
        (lambda file: file["obsm/spatial"].__setitem__((0, 0), np.nan), "values that no place has"),
        (lambda file: file["obsm/spatial"].__setitem__((0, 0), 1e308), "values that no place has"),
        (lambda file: file["var/_index"].__setitem__(0, "A" * 200_000), "a text of 200000 bytes"),
    ],
)
def test_an_anndata_file_that_cannot_be(tmp_path: Path, change: Change, said: str) -> None:
    rng, path = np.random.default_rng(0), tmp_path / "A.h5ad"
    counts = sparse.csr_matrix(rng.poisson(2, (40, 5)).astype(np.float32))
    obs = pd.DataFrame(index=[f"s{row}" for row in range(40)])
    table = anndata.AnnData(counts, obs, obsm={"spatial": rng.uniform(0, 1e4, (40, 2))})
    table.write_h5ad(path)
    with h5py.File(path, "r+") as file:
        change(file)
    assert_one_line(path, said)


@pytest.mark.parametrize(
    ("counts", "spots", "said"),
    [
        ("\tA\tB\n1x1\t1.0\t2.0\n2x1\t0.0\t1.0\n", None, None),
        ("\tA\tB\n1x1\t1.0\t2.5\n2x1\t0.0\t1.0\n", None, r"whole numbers from 0 on, found 2\.5"),
        ("\tA\tB\n1x1\t-1\t2\n2x1\t0\t1\n", None, "found -1"),
        ("\tA\tB\n1x1\t\t2\n2x1\t0\t1\n", None, "found nan"),
        ("\tA\tB\n1x1\t1099511627776\t2\n2x1\t0\t1\n", None, "at most 1,000,000"),
        (f"\tA\t{'B' * 200_000}\n1x1\t1\t2\n2x1\t0\t1\n", None, "at most 256 characters, found one of 200,000"),
        ("\t" * 300_000 + "\n1x1\n", None, "found 300,001 columns"),
        ("\tA\tB\n1x1\t0\t0\n2x1\t0\t0\n", None, "counts of the spots in tissue, found none at all in 2"),
        ("\tÄ\tΒ\n1x1\t1\t2\n2x1\t0\t1\n", "1\t1\t10\t\n2\t1\t30\t10\n", "10,000,000 in pixel_y"),
        ("\tA\tB\n1x1\t1\t2\n2x1\t0\t1\n", "1\t1\t1e308\t10\n2\t1\t30\t10\n", "10,000,000 in pixel_x"),
        ("\tA\tB\n1x1\t1\t2\n2x1\t0\t1\n", "1\t1\tnan\t10\n2\t1\t30\t10\n", "10,000,000 in pixel_x"),
    ],
)
def test_tables_of_legacy_sections(tmp_path: Path, counts: str, spots: str | None, said: str | None) -> None:
    path = tmp_path / "A1.tsv.gz"
    path.write_bytes(gzip.compress(counts.encode()))
    rows = spots or "1\t1\t10\t10\n2\t1\t30\t10\n"
    (tmp_path / "A1_selection.tsv").write_text(f"x\ty\tpixel_x\tpixel_y\n{rows}")
    if said is None:
        slide = read(path)
        assert slide.spots is not None
        assert slide.spots.counts is not None
        assert slide.spots.counts.toarray().tolist() == [[1, 2], [0, 1]]
    else:
        assert_one_line(path, said)


def test_transcripts_beyond_any_slide(tmp_path: Path) -> None:
    (tmp_path / "he_alignment.csv").write_text("2,0,0\n0,2,0\n0,0,1\n")
    for x, said in ((-1.0, "found some at -8 µm"), (1e6, "found some at 1,000,000 µm"), (float("nan"), "x_location")):
        table = {
            "x_location": [10.0] * 9 + [x],
            "y_location": [20.0] * 10,
            "feature_name": ["A"] * 10,
            "qv": [40.0] * 10,
        }
        pl.DataFrame(table).write_parquet(tmp_path / "transcripts.parquet")
        assert_one_line(tmp_path, said)

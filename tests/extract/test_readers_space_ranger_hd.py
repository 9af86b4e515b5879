"""Visium HD folders as Space Ranger writes them, against the counts and positions they were written from."""

import json
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import polars as pl
import pytest
from scipy import sparse

from extract.readers import count_files, detect_platform, read_counts, squares
from extract.readers.gene_names import unique_names
from extract.readers.tenx_h5 import open_tenx_h5, read_tenx_h5
from magnet_core.errors import MagnetError
from magnet_core.grid import sum_by_owner
from magnet_core.records import Sample, SlideCounts

MPP = 0.2738
SYMBOLS = ["TP53", "MATR3", "ACTB", "MATR3", "CD3", "MATR3-1"]
FEATURE_TYPES = ["Gene Expression"] * 4 + ["Antibody Capture", "Gene Expression"]
IS_GENE = np.array(FEATURE_TYPES) == "Gene Expression"
NUM_BINS = 30


def write_h5(path: Path, counts: np.ndarray, barcodes: list[str], **changes: Any) -> None:
    """Write bins × features as 10x does, CSC of features × bins; `changes` replace whole datasets."""
    columns = sparse.csc_matrix(counts.T)
    datasets = {
        "data": columns.data.astype(np.int32),
        "indices": columns.indices.astype(np.int64),
        "indptr": columns.indptr.astype(np.int64),
        "shape": np.array(columns.shape, np.int32),
        "barcodes": np.array(barcodes, "S"),
        "features/id": np.array([f"ENSG{i}" for i in range(len(SYMBOLS))], "S"),
        "features/name": np.array(SYMBOLS, "S"),
        "features/feature_type": np.array(FEATURE_TYPES, "S"),
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w") as file:
        for name, values in (datasets | changes).items():
            file[f"matrix/{name}"] = values


def write_size(binned: Path, size_um: int) -> tuple[np.ndarray, pl.DataFrame]:
    """Write one bin size: matrix and positions in different orders, 20 more positions out of tissue."""
    rng = np.random.default_rng(size_um)
    folder = binned / f"square_{size_um:03d}um"
    barcodes = [f"s_{size_um:03d}um_{i:05d}_{i % 7:05d}-1" for i in rng.permutation(NUM_BINS + 20)]
    counts = rng.poisson(0.4, (NUM_BINS, len(SYMBOLS)))
    write_h5(folder / "filtered_feature_bc_matrix.h5", counts, barcodes[:NUM_BINS])
    positions = pl.DataFrame(
        {
            "barcode": barcodes,
            "in_tissue": [1] * NUM_BINS + [0] * 20,
            "array_row": 0,
            "array_col": 0,
            "pxl_row_in_fullres": rng.uniform(0, 1e4, NUM_BINS + 20),
            "pxl_col_in_fullres": rng.uniform(2e4, 3e4, NUM_BINS + 20),
        }
    )
    write_positions(folder, positions.sort("barcode"))
    write_factors(folder, size_um)
    return counts, positions


def write_positions(folder: Path, positions: pl.DataFrame) -> None:
    (folder / "spatial").mkdir(exist_ok=True)
    positions.write_parquet(folder / "spatial" / "tissue_positions.parquet")


def write_factors(folder: Path, size_um: int, **changes: Any) -> None:
    factors = {"microns_per_pixel": MPP, "bin_size_um": float(size_um), "spot_diameter_fullres": size_um / MPP}
    (folder / "spatial" / "scalefactors_json.json").write_text(json.dumps(factors | changes))


@pytest.fixture
def outs(tmp_path: Path) -> Path:
    for size_um in (8, 16):
        write_size(tmp_path / "outs" / "binned_outputs", size_um)
    return tmp_path / "outs"


@pytest.fixture
def bins_8um(outs: Path) -> Path:
    return outs / "binned_outputs" / "square_008um"


def read(path: Path) -> SlideCounts:
    return read_counts(Sample("P1", path, counts=path))


def test_counts_and_centres_are_joined_by_barcode_as_x_y(tmp_path: Path) -> None:
    written = {size_um: write_size(tmp_path / "binned_outputs", size_um) for size_um in (8, 16)}
    slide = read(tmp_path)
    assert (slide.platform, slide.mpp, slide.spots) == ("space_ranger_hd", MPP, None)
    assert "scalefactors_json.json" in slide.mpp_source
    assert list(slide.genes.ids) == ["ENSG0", "ENSG1", "ENSG2", "ENSG3", "ENSG5"]
    assert list(slide.genes.names) == ["TP53", "MATR3", "ACTB", "MATR3-2", "MATR3-1"]
    assert list(slide.bins) == [8, 16]
    for size_um, (counts, positions) in written.items():
        assay = slide.bins[size_um]
        assert assay.pitch_um == size_um
        assert assay.counts is not None
        row_of = {barcode: i for i, barcode in enumerate(positions["barcode"])}
        rows = [row_of[barcode] for barcode in assay.barcodes]
        assert sorted(rows) == list(range(NUM_BINS))
        np.testing.assert_array_equal(assay.counts.toarray(), counts[rows][:, IS_GENE])
        np.testing.assert_array_equal(assay.centres_px[:, 0], positions["pxl_col_in_fullres"].to_numpy()[rows])
        np.testing.assert_array_equal(assay.centres_px[:, 1], positions["pxl_row_in_fullres"].to_numpy()[rows])


def test_bins_of_the_matrix_out_of_tissue_are_left_out(bins_8um: Path, outs: Path) -> None:
    path = bins_8um / "spatial" / "tissue_positions.parquet"
    before = read(outs).bins[8]
    assert before.counts is not None
    outside = set(before.barcodes[[0, 7, 29]])
    in_tissue = pl.col("barcode").is_in(list(outside)).not_().cast(pl.Int64)
    write_positions(bins_8um, pl.read_parquet(path).with_columns(in_tissue=in_tissue))
    after = read(outs).bins[8]
    kept = ~np.isin(before.barcodes, list(outside))
    np.testing.assert_array_equal(after.barcodes, before.barcodes[kept])
    np.testing.assert_array_equal(after.centres_px, before.centres_px[kept])
    assert (after.counts != before.counts[kept]).nnz == 0


@pytest.mark.parametrize("given", ["..", ".", "binned_outputs", "binned_outputs/square_008um"])
def test_the_folder_may_be_given_at_four_heights(outs: Path, given: str) -> None:
    assert detect_platform((outs / given).resolve()) == "space_ranger_hd"
    assert set(read((outs / given).resolve()).bins) == {8, 16}


def test_one_size_and_prefixed_names_are_enough(outs: Path, bins_8um: Path) -> None:
    (outs / "binned_outputs" / "square_016um").rename(outs / "square_016um_elsewhere")
    matrix = bins_8um / "filtered_feature_bc_matrix.h5"
    matrix.rename(matrix.with_name(f"GSM1_{matrix.name}"))
    assert list(read(outs).bins) == [8]
    assert {file.name for file in count_files(Sample("P1", outs, counts=outs))} == {
        "GSM1_filtered_feature_bc_matrix.h5",
        "tissue_positions.parquet",
        "scalefactors_json.json",
    }


def test_what_space_ranger_4_adds_changes_nothing(outs: Path, bins_8um: Path) -> None:
    before = read(outs).bins[8]
    cells = outs / "segmented_outputs"
    (cells / "spatial").mkdir(parents=True)
    (cells / "filtered_feature_cell_matrix.h5").write_bytes(b"not read")
    pl.DataFrame({"Square_002um": ["a"], "CELL_ID": ["b"]}).write_parquet(outs / "barcode_mappings.parquet")
    positions = pl.read_parquet(bins_8um / "spatial" / "tissue_positions.parquet")
    write_positions(bins_8um, positions.rename(str.capitalize))
    after = read(outs).bins[8]
    np.testing.assert_array_equal(after.barcodes, before.barcodes)
    np.testing.assert_array_equal(after.centres_px, before.centres_px)
    assert len(count_files(Sample("P1", outs, counts=outs))) == 6


def write_squares(binned: Path, *, columns: int = 22, rows: int = 18) -> pl.DataFrame:
    """Write 2 µm squares, of which the upper left triangle is in tissue; return their positions and TP53 counts."""
    folder = binned / "square_002um"
    row, column = (axis.ravel() for axis in np.mgrid[:rows, :columns])
    positions = pl.DataFrame(
        {
            "barcode": [f"s_002um_{r:05d}_{c:05d}-1" for r, c in zip(row, column, strict=True)],
            "in_tissue": (row + column < 20).astype(int),
            "array_row": row,
            "array_col": column,
            "pxl_row_in_fullres": 300 + (row * 2 + 0.1 * column) / MPP,
            "pxl_col_in_fullres": 900 + (column * 2 - 0.1 * row) / MPP,
        }
    ).sample(fraction=1, shuffle=True, seed=0)
    counts = np.random.default_rng(0).poisson(0.5, (len(positions), len(SYMBOLS)))
    in_tissue = positions["in_tissue"].to_numpy() == 1
    barcodes = positions["barcode"].to_numpy()[in_tissue].tolist()
    write_h5(folder / "filtered_feature_bc_matrix.h5", counts[in_tissue], barcodes)
    write_positions(folder, positions)
    write_factors(folder, 2)
    return positions.with_columns(tp53=pl.Series(counts[:, 0]))


def test_squares_of_2_um_are_summed_into_bins_where_nothing_else_is(tmp_path: Path) -> None:
    written = write_squares(tmp_path / "binned_outputs")
    assert detect_platform(tmp_path) == "space_ranger_hd"
    slide = read(tmp_path)
    assert slide.mpp == MPP
    assert list(slide.genes.ids) == ["ENSG0", "ENSG1", "ENSG2", "ENSG3", "ENSG5"]
    for bin_um, side in ((8, 4), (16, 8)):
        assay = slide.bins[bin_um]
        assert assay.counts is not None
        placed = written.with_columns(row=pl.col("array_row") // side, column=pl.col("array_col") // side)
        summed = (
            placed.group_by("row", "column")
            .agg(
                pl.col("tp53").filter(pl.col("in_tissue") == 1).sum(),
                pl.col("in_tissue").max(),
                pl.col("pxl_col_in_fullres", "pxl_row_in_fullres").mean(),
            )
            .filter(pl.col("in_tissue") == 1)
            .sort("row", "column")
        )
        names = [f"s_{bin_um:03d}um_{r:05d}_{c:05d}-1" for r, c in summed.select("row", "column").iter_rows()]
        assert assay.barcodes.tolist() == names
        assert assay.pitch_um == bin_um
        np.testing.assert_array_equal(assay.counts[:, 0].toarray().ravel(), summed["tp53"])
        np.testing.assert_allclose(assay.centres_px, summed.select("pxl_col_in_fullres", "pxl_row_in_fullres"))
    fine, coarse = slide.bins[8].counts, slide.bins[16].counts
    assert fine is not None
    assert coarse is not None
    np.testing.assert_array_equal(fine.sum(axis=0), coarse.sum(axis=0))


def test_squares_summed_block_by_block_are_the_dense_sums(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_squares(tmp_path / "binned_outputs")
    folder = tmp_path / "binned_outputs" / "square_002um"
    positions = pl.read_parquet(folder / "spatial" / "tissue_positions.parquet")
    left_out = pl.col("array_col") == 5  # squares of the matrix that a user took out of the tissue
    write_positions(folder, positions.with_columns(in_tissue=pl.when(left_out).then(0).otherwise("in_tissue")))
    matrix = read_tenx_h5(folder / "filtered_feature_bc_matrix.h5")
    dense = {bin_um: dict[str, np.ndarray]() for bin_um in (8, 16)}
    for barcode, row in zip(matrix.barcodes.tolist(), matrix.counts.toarray(), strict=True):
        square_row, square_column = int(barcode[8:13]), int(barcode[14:19])
        for bin_um, sums in dense.items():
            if square_column != 5:
                name = f"s_{bin_um:03d}um_{square_row * 2 // bin_um:05d}_{square_column * 2 // bin_um:05d}-1"
                sums[name] = sums.get(name, 0) + row
    monkeypatch.setattr(squares, "BLOCK_COUNTS", 40)
    monkeypatch.setattr(squares, "BLOCK_BARCODES", 7)
    slide = read(tmp_path)
    for bin_um, sums in dense.items():
        counts = slide.bins[bin_um].counts
        assert counts is not None
        assert (counts.dtype, counts.indices.dtype) == (np.int32, np.int32)
        np.testing.assert_array_equal(slide.bins[bin_um].barcodes, sorted(sums))
        np.testing.assert_array_equal(counts.toarray(), [sums[name] for name in sorted(sums)])


def test_wrong_squares_are_named_by_their_barcodes(tmp_path: Path) -> None:
    positions = write_squares(tmp_path / "binned_outputs").drop("tp53")
    folder = tmp_path / "binned_outputs" / "square_002um"
    first = "s_002um_00003_00004-1"
    write_positions(folder, positions.filter(pl.col("barcode") != first))
    with pytest.raises(MagnetError, match=f"none for 1 of 207, for example '{first}'"):
        read(tmp_path)
    write_positions(folder, positions.with_columns(pl.col("barcode").str.replace("002", "008")))
    with pytest.raises(MagnetError, match=r"such as s_002um_00012_00034-1, found 396 of 396 that are written"):
        read(tmp_path)


def test_blocks_of_rows_hold_no_more_counts_than_asked_for(tmp_path: Path) -> None:
    dense = np.zeros((6, len(SYMBOLS)), int)
    dense[0], dense[2, :2], dense[3, 0], dense[5, 1] = 3, 1, 9, 7
    write_h5(tmp_path / "matrix.h5", dense, [f"b{row}" for row in range(6)])
    with open_tenx_h5(tmp_path / "matrix.h5") as matrix:
        blocks = list(matrix.blocks(3))
        counts = sparse.vstack([matrix.counts(rows) for rows in blocks])
        assert matrix.barcodes(slice(2, 4)).tolist() == ["b2", "b3"]
    assert blocks == [slice(0, 1), slice(1, 5), slice(5, 6)]  # the first row alone holds six
    np.testing.assert_array_equal(counts.toarray(), dense[:, IS_GENE])


def test_counts_of_a_narrow_type_do_not_overflow_in_sums(outs: Path, bins_8um: Path) -> None:
    barcodes = read(outs).bins[8].barcodes.tolist()
    ones = np.ones((NUM_BINS, len(SYMBOLS)))
    full = {"data": np.full(ones.size, 255, np.uint8)}
    write_h5(bins_8um / "filtered_feature_bc_matrix.h5", ones, barcodes, **full)
    counts = read(outs).bins[8].counts
    assert counts is not None
    assert sum_by_owner(counts, np.zeros(NUM_BINS, int), 1).toarray().tolist() == [[255 * NUM_BINS] * 5]


def test_squares_of_2_um_are_not_read_where_bins_are(outs: Path) -> None:
    before = read(outs)
    write_squares(outs / "binned_outputs")
    assert len(count_files(Sample("P1", outs, counts=outs))) == 6
    np.testing.assert_array_equal(read(outs).bins[8].barcodes, before.bins[8].barcodes)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"microns_per_pixel": MPP * 1.03}, r"microns_per_pixel 0\.28201, and bin_size_um 8 / .* 29\.218 px"),
        ({"bin_size_um": 2.0}, "bin_size_um 2 "),
        ({"microns_per_pixel": None}, "found TypeError"),
        ({"spot_diameter_fullres": 0}, "spot_diameter_fullres 0 px"),
    ],
)
def test_a_resolution_that_contradicts_itself_is_refused(
    outs: Path, bins_8um: Path, changes: dict[str, Any], message: str
) -> None:
    write_factors(bins_8um, 8, microns_per_pixel=MPP * 1.015)
    assert read(outs).mpp == pytest.approx(MPP * 1.015)  # within 2%
    write_factors(bins_8um, 8, **changes)
    with pytest.raises(MagnetError, match=message):
        read(outs)


def test_barcodes_without_position_are_counted_and_shown(outs: Path, bins_8um: Path) -> None:
    path = bins_8um / "spatial" / "tissue_positions.parquet"
    barcodes = read(outs).bins[8].barcodes
    write_positions(bins_8um, pl.read_parquet(path).filter(~pl.col("barcode").is_in(list(barcodes[[3, 9]]))))
    with pytest.raises(MagnetError, match=f"none for 2 of 30, for example '{barcodes[3]}'"):
        read(outs)


def test_other_wrong_positions(outs: Path, bins_8um: Path) -> None:
    path = bins_8um / "spatial" / "tissue_positions.parquet"
    positions = pl.read_parquet(path)
    write_positions(bins_8um, pl.concat([positions, positions.head(3)]))
    with pytest.raises(MagnetError, match="each barcode once in the positions, found 3 repeated"):
        read(outs)
    write_positions(bins_8um, positions.drop("pxl_col_in_fullres"))
    with pytest.raises(MagnetError, match="columns barcode, in_tissue"):
        read(outs)
    path.write_bytes(b"PAR1")
    with pytest.raises(MagnetError, match=r"tissue_positions\.parquet: expected a parquet file"):
        read(outs)
    path.unlink()
    with pytest.raises(MagnetError, match=r"expected the file tissue_positions\.parquet, found no such file"):
        read(outs)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"shape": np.array([6, 31])}, r"shape \(6, 31\) for 6 features and 30 barcodes"),
        ({"indptr": np.zeros(31, np.int64)}, "an indptr that does not fit"),
        ({"data": np.full(180, 0.5, np.float32)}, r"whole numbers from 0 on, found 0\.5: they are normalised"),
        ({"features/feature_type": np.array(["Antibody Capture"] * 6, "S")}, "only Antibody Capture"),
    ],
)
def test_a_malformed_matrix_is_refused(outs: Path, bins_8um: Path, changes: dict[str, Any], message: str) -> None:
    path = bins_8um / "filtered_feature_bc_matrix.h5"
    write_h5(path, np.ones((NUM_BINS, 6)), list(read(outs).bins[8].barcodes), **changes)
    with pytest.raises(MagnetError, match=message):
        read(outs)


def test_a_matrix_that_is_cut_short_or_of_another_kind(outs: Path, bins_8um: Path) -> None:
    path = bins_8um / "filtered_feature_bc_matrix.h5"
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(MagnetError, match=r"filtered_feature_bc_matrix\.h5: expected a 10x"):
        read(outs)
    with h5py.File(path, "w") as file:
        file["X"] = [1]
    with pytest.raises(MagnetError, match="'matrix'"):
        read(outs)


def test_two_runs_are_not_mixed(outs: Path, bins_8um: Path) -> None:
    names = {"features/id": np.array([f"ENSG{i}" for i in (0, 2, 1, 3, 4, 5)], "S")}
    write_h5(
        bins_8um / "filtered_feature_bc_matrix.h5", np.ones((NUM_BINS, 6)), list(read(outs).bins[8].barcodes), **names
    )
    with pytest.raises(MagnetError, match="expected the same genes at 8 and 16 µm"):
        read(outs)


def test_an_unknown_layout_says_what_was_looked_for(tmp_path: Path) -> None:
    (tmp_path / "binned_outputs" / "square_024um").mkdir(parents=True)
    with pytest.raises(MagnetError, match="space_ranger_hd: a folder with .*; legacy_st: a counts table"):
        detect_platform(tmp_path)
    with pytest.raises(MagnetError, match="found nothing there"):
        detect_platform(tmp_path / "absent")
    with pytest.raises(MagnetError, match="expected a folder with binned_outputs"):
        read_counts(Sample("P1", tmp_path, counts=tmp_path, platform="space_ranger_hd"))
    with pytest.raises(MagnetError, match="H&E only"):
        read_counts(Sample("P1", tmp_path))


def test_unique_names_keep_the_first_and_pass_over_taken_ones() -> None:
    names = np.array(["A", "B", "A", "A-1", "A", "B"])
    assert list(unique_names(names)) == ["A", "B", "A-2", "A-1", "A-3", "B-1"]

"""Visium folders of every age: positions with and without a header, in tissue only, and no µm/px made up."""

from pathlib import Path

import h5py
import numpy as np
import polars as pl
import pytest
from scipy import sparse

from extract.readers import count_files, detect_platform, read_counts
from magnet_core.errors import MagnetError
from magnet_core.records import Assay, Sample, SlideCounts

PITCH_PX = 250.0
GENES = ["TP53", "ACTB", "MATR3"]
NUM_SPOTS = 200


def honeycomb() -> pl.DataFrame:
    """All 4,992 spots of the 6.5 mm array, turned by 3 degrees, in shuffled order; the first rows are in tissue."""
    row = np.repeat(np.arange(78), 64)
    col = np.tile(np.arange(0, 128, 2), 78) + row % 2
    x, y = col / 2 * PITCH_PX, row * 3**0.5 / 2 * PITCH_PX
    cos, sin = np.cos(np.pi / 60), np.sin(np.pi / 60)
    order = np.random.default_rng(0).permutation(len(row))
    return pl.DataFrame(
        {
            "barcode": [f"B{i:04d}-1" for i in range(4992)],
            "in_tissue": [1] * NUM_SPOTS + [0] * (4992 - NUM_SPOTS),
            "array_row": row[order],
            "array_col": col[order],
            "pxl_row_in_fullres": (1000 + sin * x + cos * y)[order],
            "pxl_col_in_fullres": (5000 + cos * x - sin * y)[order],
        }
    )


def write_matrix(path: Path, barcodes: list[str], counts: np.ndarray) -> None:
    columns = sparse.csc_matrix(counts.T)
    with h5py.File(path, "w") as file:
        file["matrix/data"] = columns.data.astype(np.int32)
        file["matrix/indices"] = columns.indices.astype(np.int64)
        file["matrix/indptr"] = columns.indptr.astype(np.int64)
        file["matrix/shape"] = np.array(columns.shape, np.int32)
        file["matrix/barcodes"] = np.array(barcodes, "S")
        file["matrix/features/id"] = np.array([f"ENSG{i}" for i in range(len(GENES))], "S")
        file["matrix/features/name"] = np.array(GENES, "S")
        file["matrix/features/feature_type"] = np.array(["Gene Expression"] * len(GENES), "S")


def counts_of(barcodes: list[str]) -> np.ndarray:
    """Counts that name their spot, so that a wrong join is seen."""
    number = np.array([int(barcode[1:5]) for barcode in barcodes])
    return np.stack([number, number % 7, number % 3 == 0], axis=1)


@pytest.fixture
def outs(tmp_path: Path) -> Path:
    """An outs folder whose positions are written as Space Ranger 2 does."""
    positions = honeycomb()
    (tmp_path / "outs" / "spatial").mkdir(parents=True)
    barcodes = sorted(positions["barcode"][:NUM_SPOTS].to_list(), reverse=True)
    write_matrix(tmp_path / "outs" / "filtered_feature_bc_matrix.h5", barcodes, counts_of(barcodes))
    positions.write_csv(tmp_path / "outs" / "spatial" / "tissue_positions.csv")
    return tmp_path / "outs"


def read(path: Path) -> SlideCounts:
    return read_counts(Sample("P1", path, counts=path))


def spots_of(slide: SlideCounts) -> Assay:
    assert slide.spots is not None
    return slide.spots


def assert_joined(slide: SlideCounts) -> None:
    spots = spots_of(slide)
    assert len(spots) == NUM_SPOTS
    assert spots.counts is not None
    np.testing.assert_array_equal(spots.counts.toarray(), counts_of(spots.barcodes.tolist()))
    by_barcode = honeycomb().select("barcode", "pxl_col_in_fullres", "pxl_row_in_fullres").rows_by_key("barcode")
    expected = [by_barcode[barcode][0] for barcode in spots.barcodes.tolist()]
    np.testing.assert_allclose(spots.centres_px, expected)


@pytest.mark.parametrize("version", ["header", "no header", "old name with header", "parquet", "prefixed", "flat"])
def test_positions_of_every_version_are_joined_by_barcode_as_x_y(outs: Path, version: str) -> None:
    written = outs / "spatial" / "tissue_positions.csv"
    old_name = outs / "spatial" / "tissue_positions_list.csv"
    if version == "no header":
        honeycomb().write_csv(old_name, include_header=False)
        written.unlink()
    elif version == "old name with header":
        written.rename(old_name)
    elif version == "parquet":
        honeycomb().rename(str.upper).write_parquet(written.with_suffix(".parquet"))
        written.unlink()
    elif version == "prefixed":
        for file in (written, outs / "filtered_feature_bc_matrix.h5"):
            file.rename(file.with_name(f"GSM1_{file.name}"))
    elif version == "flat":
        written.rename(outs / f"P1_{written.name}")
    assert detect_platform(outs) == "visium"
    assert len(count_files(Sample("P1", outs, counts=outs))) == 2
    assert_joined(read(outs))
    assert_joined(read(outs.parent))


def test_no_resolution_but_a_hint_from_the_pitch(outs: Path) -> None:
    (outs / "spatial" / "scalefactors_json.json").write_text('{"spot_diameter_fullres": 100.0}')
    slide = read(outs)
    assert (slide.platform, slide.mpp, spots_of(slide).pitch_um) == ("visium", None, 100.0)
    assert slide.mpp_source == "spots lie 250.0 px apart: 0.400 µm/px at the 100 µm pitch"


def test_spots_of_the_matrix_out_of_tissue_are_left_out(outs: Path) -> None:
    outside = honeycomb()["barcode"][:5].to_list()
    in_tissue = pl.col("in_tissue") * ~pl.col("barcode").is_in(outside)
    honeycomb().with_columns(in_tissue=in_tissue).write_csv(outs / "spatial" / "tissue_positions.csv")
    spots = spots_of(read(outs))
    assert len(spots) == NUM_SPOTS - 5
    assert not set(outside) & set(spots.barcodes.tolist())


def test_wrong_positions(outs: Path) -> None:
    path = outs / "spatial" / "tissue_positions.csv"
    path.write_text("")
    with pytest.raises(MagnetError, match=r"tissue_positions\.csv: expected a file with content, found an empty file"):
        read(outs)
    path.write_text("\n")
    with pytest.raises(MagnetError, match=r"tissue_positions\.csv: expected a CSV file with the columns barcode"):
        read(outs)
    path.write_text("B0000-1,1,0,0,7\n")
    with pytest.raises(MagnetError, match="expected a CSV file"):
        read(outs)
    honeycomb().tail(100).write_csv(path)
    with pytest.raises(MagnetError, match="none for 200 of 200"):
        read(outs)
    more = [honeycomb().with_columns(barcode=pl.col("barcode") + str(i)) for i in range(3)]
    pl.concat(more).write_csv(path)
    with pytest.raises(MagnetError, match=r"4,992 or 14,336 spots, found 14,976 positions; for Visium HD"):
        read(outs)
    path.unlink()
    with pytest.raises(MagnetError, match="visium: a folder with"):
        read(outs)
    with pytest.raises(MagnetError, match="found no such files"):
        read_counts(Sample("P1", outs, counts=outs, platform="visium"))

"""Legacy ST tables: joined by name, turned by nothing, and no µm/px made up."""

import gzip
from pathlib import Path

import numpy as np
import pytest

from extract.readers import count_files, detect_platform, read_counts
from magnet_core.errors import MagnetError
from magnet_core.records import Sample, SlideCounts

GENES = ["ACTB", "MATR3", "TP53", "MATR3"]
SPOTS = [(1, 1), (2, 1), (3, 1), (1, 2), (2, 2), (3, 2)]
PIXELS = {(x, y): (300 * x + 20.5, 300 * y + 1000.25) for x, y in SPOTS}
COUNTS = {(x, y): [x, y, 0, 10 * x + y] for x, y in SPOTS}
HEADER = "x\ty\tnew_x\tnew_y\tpixel_x\tpixel_y\tselected"


def write_section(
    root: Path, *, counted: list[tuple[int, int]] = SPOTS, unselected: tuple[int, int] | None = None
) -> Path:
    """Write the section A1 with its spots in another order than its counts."""
    (root / "cnts").mkdir()
    (root / "spots").mkdir()
    rows = ["\t".join(["", *GENES])]
    rows += ["\t".join(map(str, [f"{x}x{y}", *COUNTS[x, y]])) for x, y in counted]
    with gzip.open(root / "cnts" / "A1.tsv.gz", "wt") as file:
        file.write("\n".join(rows) + "\n")
    spots = [HEADER]
    for x, y in reversed(SPOTS):
        px, py = PIXELS[x, y]
        spots.append(f"{x}\t{y}\t{x + 0.01}\t{y - 0.01}\t{px}\t{py}\t{int((x, y) != unselected)}")
    (root / "spots" / "A1_selection.tsv").write_text("\n".join(spots) + "\n")
    return root / "cnts" / "A1.tsv.gz"


def read(path: Path) -> SlideCounts:
    return read_counts(Sample("A1", path, counts=path))


def test_counts_and_centres_are_joined_by_name(tmp_path: Path) -> None:
    slide = read(write_section(tmp_path))
    assert slide.spots is not None
    assert slide.spots.counts is not None
    assert (slide.platform, slide.bins, slide.spots.pitch_um) == ("legacy_st", {}, 200.0)
    assert list(slide.spots.barcodes) == [f"{x}x{y}" for x, y in SPOTS]
    np.testing.assert_array_equal(slide.spots.centres_px, [PIXELS[spot] for spot in SPOTS])
    np.testing.assert_array_equal(slide.spots.counts.toarray(), [COUNTS[spot] for spot in SPOTS])
    assert list(slide.genes.ids) == GENES
    assert list(slide.genes.names) == ["ACTB", "MATR3", "TP53", "MATR3-1"]


def test_no_resolution_but_a_hint_of_it(tmp_path: Path) -> None:
    slide = read(write_section(tmp_path))
    assert slide.mpp is None
    assert slide.mpp_source == "spots lie 300.0 px apart: 0.667 µm/px at the 200 µm pitch"


def test_unmatched_and_unselected_spots_are_left_out_and_logged(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = write_section(tmp_path, counted=SPOTS[1:], unselected=SPOTS[3])
    slide = read(path)
    assert slide.spots is not None
    assert slide.spots.counts is not None
    assert list(slide.spots.barcodes) == ["2x1", "3x1", "2x2", "3x2"]
    np.testing.assert_array_equal(slide.spots.counts[1].toarray(), [COUNTS[3, 1]])
    assert "1 of 5 spots have no counts" in caplog.text
    assert "1 of 5 rows of counts have no selected spot" in caplog.text


def test_a_folder_with_one_table_and_spots_beside_it(tmp_path: Path) -> None:
    write_section(tmp_path)
    assert detect_platform(tmp_path / "cnts") == "legacy_st"
    (tmp_path / "spots" / "A1_selection.tsv").rename(tmp_path / "cnts" / "A1_selection.tsv")
    slide = read(tmp_path / "cnts")
    assert slide.spots is not None
    assert len(slide.spots) == 6
    files = count_files(Sample("A1", tmp_path, counts=tmp_path / "cnts"))
    assert [file.name for file in files] == ["A1.tsv.gz", "A1_selection.tsv"]
    (tmp_path / "cnts" / "A2.tsv").write_text("")
    with pytest.raises(MagnetError, match="none of these"):
        read(tmp_path / "cnts")


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ("\tA\tB\n1x1\t0.5\t2\n2x1\t1\t2\n", r"whole numbers from 0 on, found 0\.5: they are normalised"),
        ("\tA\tB\n1x1\t1\n", "row of 2 whole numbers.*found 1 columns"),
        ("\tA\tB\n1x1\t1\t2\n1x1\t1\t2\n", "each spot once, found '1x1' 2 times"),
        ("\tA\tB\n7x7\t1\t2\n", r"spots named as in the counts table \('7x7'\), found '3x2'"),
        ("", "expected a tab-separated table"),
    ],
)
def test_wrong_counts(tmp_path: Path, table: str, message: str) -> None:
    with gzip.open(write_section(tmp_path), "wt") as file:
        file.write(table)
    with pytest.raises(MagnetError, match=message) as caught:
        read(tmp_path / "cnts")
    assert "\n" not in str(caught.value)


def test_counts_cut_short(tmp_path: Path) -> None:
    path = write_section(tmp_path)
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(MagnetError, match=r"A1\.tsv\.gz: expected a tab-separated table"):
        read(path)


def test_wrong_spots(tmp_path: Path) -> None:
    path = write_section(tmp_path)
    spots = tmp_path / "spots" / "A1_selection.tsv"
    spots.write_text("x\ty\tnew_x\tnew_y\n1\t1\t1\t1\n")
    with pytest.raises(MagnetError, match="found no pixel_x, no pixel_y"):
        read(path)
    spots.write_text(f"{HEADER}\n1\tone\t1\t1\t20\t20\t1\n")
    with pytest.raises(MagnetError, match="expected numbers in x, y, pixel_x"):
        read(path)
    spots.unlink()
    with pytest.raises(MagnetError, match=r"A1_selection\.tsv, in \.\./spots or beside it, found neither"):
        read(path)


@pytest.mark.parametrize(("section", "num_spots", "num_genes"), [("B4", 283, 15289), ("C3", 180, 15821)])
def test_the_real_sections(section: str, num_spots: int, num_genes: int) -> None:
    path = Path(__file__).parents[3] / f"shared/data/her2st/cnts/{section}.tsv.gz"
    if not path.is_file():
        pytest.skip("the sample is not here")
    slide = read(path)
    assert slide.spots is not None
    assert slide.spots.counts is not None
    assert slide.spots.counts.shape == (num_spots, num_genes)
    assert "0.68" in slide.mpp_source

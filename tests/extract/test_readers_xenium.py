"""Xenium transcripts: counted as a plain loop counts them, and carried to the image by the inverse of its alignment."""

from collections import Counter
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from extract.readers import count_files, detect_platform, read_counts
from magnet_core.errors import MagnetError
from magnet_core.records import Assay, Sample, SlideCounts

PIXEL_UM = 0.25
MPP = 0.5
# The image is turned by a quarter: its x is Xenium's y, and its y runs against Xenium's x.
ALIGNMENT = np.array([[0, -MPP / PIXEL_UM, 1600], [MPP / PIXEL_UM, 0, -40], [0, 0, 1]])
NAMES = ["TP53", "ACTB", "MYC", "NegControlProbe_1", "UnassignedCodeword_7", "BLANK_3"]


def transcripts(number: int = 1200) -> pl.DataFrame:
    """Transcripts over 192 × 96 µm of tissue, the last two far off on bare glass."""
    rng = np.random.default_rng(0)
    names = np.append(rng.choice(NAMES, number - 2), NAMES[:2])
    return pl.DataFrame(
        {
            "x_location": np.append(rng.uniform(0, 192, number - 2), [900, 910]).astype(np.float32),
            "y_location": np.append(rng.uniform(0, 96, number - 2), [900, 905]).astype(np.float32),
            "feature_name": names,
            "qv": np.append(rng.uniform(0, 40, number - 2), [30, 30]).astype(np.float32),
            "is_gene": [name in NAMES[:3] for name in names],
        }
    )


@pytest.fixture
def outs(tmp_path: Path) -> Path:
    outs = tmp_path / "outs"
    outs.mkdir()
    transcripts().write_parquet(outs / "transcripts.parquet")
    (outs / "experiment.xenium").write_text(f'{{"pixel_size": {PIXEL_UM}}}')
    np.savetxt(tmp_path / "P1_he_imagealignment.csv", ALIGNMENT, delimiter=",")
    return outs


def read(path: Path) -> SlideCounts:
    return read_counts(Sample("P1", path, counts=path))


def counted_one_by_one(bin_um: int) -> Counter[tuple[int, int, str]]:
    kept = transcripts().head(-2).filter(pl.col("qv") >= 20, pl.col("is_gene"))
    return Counter(
        (int(y // bin_um), int(x // bin_um), name)
        for x, y, name in kept.select("x_location", "y_location", "feature_name").iter_rows()
    )


def as_counter(assay: Assay, names: np.ndarray) -> Counter[tuple[int, int, str]]:
    assert assay.counts is not None
    table = assay.counts.tocoo()
    places = [(int(barcode[8:13]), int(barcode[14:19])) for barcode in assay.barcodes]
    return Counter(
        {
            (*places[row], str(names[gene])): int(n)
            for row, gene, n in zip(table.row, table.col, table.data, strict=True)
        }
    )


def test_bins_count_what_a_loop_counts(outs: Path) -> None:
    assert detect_platform(outs) == "xenium"
    slide = read(outs)
    assert list(slide.genes.names) == ["ACTB", "MYC", "TP53"]
    for bin_um in (8, 16):
        assert as_counter(slide.bins[bin_um], slide.genes.names) == counted_one_by_one(bin_um)
        assert slide.bins[bin_um].pitch_um == bin_um


def test_all_bins_in_tissue_are_there_also_empty_ones_and_none_on_glass(outs: Path) -> None:
    slide = read(outs)
    for bin_um in (8, 16):
        assay = slide.bins[bin_um]
        assert len(assay) == 192 * 96 / bin_um**2
        assert not any(barcode.startswith(f"s_{bin_um:03d}um_{900 // bin_um:05d}") for barcode in assay.barcodes)
    assert slide.bins[8].counts is not None
    assert (slide.bins[8].counts.sum(axis=1) == 0).any()


def test_a_slide_with_hardly_a_transcript_has_no_bins(outs: Path) -> None:
    transcripts().tail(2).write_parquet(outs / "transcripts.parquet")
    assert [len(assay) for assay in read(outs).bins.values()] == [0, 0]


def test_centres_are_carried_to_the_image(outs: Path) -> None:
    slide = read(outs.parent)
    assert slide.mpp == pytest.approx(MPP)
    assert slide.mpp_source == "the alignment matrix P1_he_imagealignment.csv"
    for bin_um in (8, 16):
        assay = slide.bins[bin_um]
        place = np.array([(int(barcode[14:19]), int(barcode[8:13])) for barcode in assay.barcodes])
        xenium_px = (place + 0.5) * bin_um / PIXEL_UM
        image_px = np.stack([(xenium_px[:, 1] + 40) / 2, (1600 - xenium_px[:, 0]) / 2], axis=1)
        np.testing.assert_allclose(assay.centres_px, image_px)


def test_versions_without_is_gene_and_with_names_as_bytes(outs: Path) -> None:
    before = read(outs)
    old = transcripts().drop("is_gene").with_columns(pl.col("feature_name").cast(pl.Binary))
    old.write_parquet(outs / "transcripts.parquet")
    after = read(outs)
    np.testing.assert_array_equal(after.genes.names, before.genes.names)
    assert as_counter(after.bins[8], after.genes.names) == counted_one_by_one(8)


def test_the_alignment_is_asked_for_and_never_made_up(outs: Path) -> None:
    alignment = outs.parent / "P1_he_imagealignment.csv"
    sample = Sample("P1", outs, counts=outs)
    assert [file.name for file in count_files(sample)] == ["transcripts.parquet", alignment.name, "experiment.xenium"]
    np.savetxt(outs.parent / "alignment_2.csv", ALIGNMENT, delimiter=",")
    with pytest.raises(MagnetError, match=r"found P1_he_imagealignment\.csv, alignment_2\.csv|alignment_2\.csv, P1"):
        read(outs)
    (outs.parent / "alignment_2.csv").unlink()
    alignment.unlink()
    with pytest.raises(MagnetError, match=r"one file \*alignment\*\.csv, .* found none; export it in Xenium Explorer"):
        read(outs)


@pytest.mark.parametrize(
    ("matrix", "message"),
    [
        (np.eye(2), r"shape \(2, 2\)"),
        (np.diag([2.0, 1.0, 1.0]), r"0\.25 × 0\.5 µm/px"),
        (np.diag([1e-3, 1e-3, 1.0]), r"0\.00025 × 0\.00025 µm/px"),
        (np.ones((3, 3)), "a table of shape"),
        (np.full((3, 3), np.nan), "a table of shape"),
        (ALIGNMENT @ np.array([[1, 0, 900], [0, 1, 900], [0, 0, 1]]), "their middle at x=-"),
    ],
)
def test_an_alignment_out_of_bounds_is_refused(outs: Path, matrix: np.ndarray, message: str) -> None:
    np.savetxt(outs.parent / "P1_he_imagealignment.csv", matrix, delimiter=",")
    with pytest.raises(MagnetError, match=message):
        read(outs)


def test_wrong_transcripts(outs: Path) -> None:
    path = outs / "transcripts.parquet"
    transcripts().with_columns(qv=pl.lit(3.0)).write_parquet(path)
    with pytest.raises(MagnetError, match="qv of 20 or more, found none"):
        read(outs)
    transcripts().drop("x_location").write_parquet(path)
    with pytest.raises(MagnetError, match="a parquet file with x_location"):
        read(outs)
    path.write_bytes(b"PAR1")
    with pytest.raises(MagnetError, match=r"transcripts\.parquet: expected a parquet file"):
        read(outs)
    transcripts().write_parquet(path)
    (outs / "experiment.xenium").write_text("{}")
    with pytest.raises(MagnetError, match="expected pixel_size in µm, found KeyError"):
        read(outs)

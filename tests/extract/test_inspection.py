"""What `extract inspect` says of good slides and of slides with the usual mistakes, and what it draws."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy import sparse
from typer.testing import CliRunner

from extract.cli import app
from extract.config import GeometryConfig
from extract.inspection import SlideFacts, slide_facts
from extract.lattice import measure_lattice
from extract.overlay import TISSUE, covered_by, draw_overlay, scale_bar_um
from extract.resolution import enlarging, resolve_mpp
from magnet_core.records import Assay, Genes, Sample, SlideCounts
from magnet_core.slides import SlideImage, open_slide

MPP = 0.5
OVERRIDDEN = {"mpp": 0.45, "mpp_overrides": True}
TISSUE_BOX_PX = (100, 140, 500, 300)  # left, top, right, bottom: wider than high, so that a swap shows


def bins_on(box: tuple[int, int, int, int], *, shift_px: tuple[int, int] = (0, 0), umi: int = 50) -> SlideCounts:
    """8 µm bins that fill a box of the image, every one with `umi` counts."""
    left, top, right, bottom = box
    x, y = np.meshgrid(np.arange(left + 8, right, 16.0), np.arange(top + 8, bottom, 16.0))
    centres_px = np.stack([x.ravel(), y.ravel()], axis=1) + shift_px
    counts = sparse.csr_matrix(np.tile(np.array([[umi - 10, 10, 0]]), (len(centres_px), 1)))
    genes = Genes(np.array(["E1", "E2", "E3"]), np.array(["A", "B", "C"]))
    barcodes = np.array([f"b{row}" for row in range(len(centres_px))])
    return SlideCounts(
        "space_ranger_hd", genes, bins={8: Assay(barcodes, centres_px, counts, 8.0)}, mpp=MPP, mpp_source="Space Ranger"
    )


@pytest.fixture
def image(tmp_path: Path) -> Path:
    """A flat image of 640 × 480 px: a pink box on white glass."""
    picture = np.full((480, 640, 3), 240, np.uint8)
    left, top, right, bottom = TISSUE_BOX_PX
    picture[top:bottom, left:right] = (200, 120, 170)
    Image.fromarray(picture).save(tmp_path / "slide.png")
    return tmp_path / "slide.png"


def facts_of(image: Path, counts: SlideCounts, **columns: object) -> SlideFacts:
    sample = Sample("S", image, patient="P", **columns)  # type: ignore[arg-type]
    with open_slide(image) as slide:
        return slide_facts(sample, slide, counts, resolution=resolve_mpp(sample, slide, counts))


def test_facts_of_a_good_slide_are_exact_and_warn_of_its_resolution_alone(image: Path) -> None:
    facts = facts_of(image, bins_on(TISSUE_BOX_PX))
    assert facts.warnings == (enlarging(MPP),)
    assert (facts.size_px, facts.num_genes, facts.resolution.mpp) == ((640, 480), 3, MPP)
    assert [(assay.name, assay.rows, assay.median_umi) for assay in facts.assays] == [("8 µm bins", 250, 50.0)]
    assert facts.tissue_mm2 == pytest.approx(250 * 64e-6)


@pytest.mark.parametrize(
    ("counts", "columns", "said"),
    [
        (bins_on(TISSUE_BOX_PX, umi=12), {}, "median UMI of 8 µm bins: 12, below 20"),
        (bins_on(TISSUE_BOX_PX, shift_px=(300, 0)), {}, "of the centres lie outside the image; 'extract run' will"),
        (bins_on(TISSUE_BOX_PX, shift_px=(0, -140)), {}, "of the centres in tissue lie on bare glass"),
        (bins_on(TISSUE_BOX_PX), {"mpp": 0.49}, "0.4900 from samples.csv, but 0.5000 from Space Ranger (+2.0%)"),
        (bins_on(TISSUE_BOX_PX), OVERRIDDEN, "0.4500 from samples.csv, but 0.5000 from Space Ranger (+11.1%)"),
        (bins_on(TISSUE_BOX_PX), OVERRIDDEN, "neighbours lie 7.20 µm apart"),
    ],
)
def test_the_usual_mistakes_are_warned_of(
    image: Path, counts: SlideCounts, columns: dict[str, object], said: str
) -> None:
    assert said in " | ".join(facts_of(image, counts, **columns).warnings)


def test_swapped_axes_are_named_as_such(image: Path) -> None:
    counts = bins_on(TISSUE_BOX_PX)
    swapped = dataclasses.replace(counts.bins[8], centres_px=counts.bins[8].centres_px[:, ::-1])
    warnings = facts_of(image, dataclasses.replace(counts, bins={8: swapped})).warnings
    assert any("x and y may be swapped" in warning for warning in warnings)
    assert any("with x and y swapped it would be 0%" in warning for warning in warnings)


def test_lattice_is_measured_whatever_its_turn_and_shape() -> None:
    column, row = np.meshgrid(np.arange(20.0), np.arange(20.0))
    turn = np.array([[np.cos(0.1), np.sin(0.1)], [-np.sin(0.1), np.cos(0.1)]])
    square = measure_lattice(np.stack([column.ravel(), row.ravel()], axis=1) * 7 @ turn)
    hexagonal = measure_lattice(np.stack([(column + row % 2 / 2).ravel(), (row * np.sqrt(3) / 2).ravel()], axis=1) * 9)
    assert square is not None
    assert hexagonal is not None
    assert (square.hexagonal, hexagonal.hexagonal) == (False, True)
    assert (square.pitch_px, square.angle) == pytest.approx((7, 0.1))
    assert hexagonal.pitch_px == pytest.approx(9)
    assert hexagonal.cell_area_px == pytest.approx(81 * np.sqrt(3) / 2)
    assert measure_lattice(np.zeros((3, 2))) is None


def test_outline_lies_where_the_bins_lie(image: Path) -> None:
    """Outline pixels of the overview surround the tissue box; with shifted bins they move along."""

    def outline(slide: SlideImage, counts: SlideCounts) -> np.ndarray:
        page = np.asarray(draw_overlay(slide, MPP, counts, title=["S"]))[:, :660]  # the overview is not scaled here
        rows, columns = np.nonzero((page == TISSUE).all(axis=2))
        in_overview = rows < 540  # the legend lies below
        return np.array([columns[in_overview].min(), rows[in_overview].min()])

    with open_slide(image) as slide:
        first = outline(slide, bins_on(TISSUE_BOX_PX))
        shifted = outline(slide, bins_on(TISSUE_BOX_PX, shift_px=(32, 16)))
    np.testing.assert_allclose(shifted - first, (32, 16), atol=1)


def test_what_a_run_of_other_settings_would_take_is_what_is_shown(tmp_path: Path, image: Path) -> None:
    """Patches of HEST's probe, 112 µm at 0.5 µm/px: the legend says them, and a slide of 0.25 µm/px is not enlarged."""
    from extract.overlay import Marks, _legend

    hest = GeometryConfig(spot_patch_um=112, region_patch_um=224, bin_patch_um=56)
    usual, other = (Marks(bins_on(TISSUE_BOX_PX), MPP, sizes) for sizes in (GeometryConfig(), hest))
    assert len(other.regions_um) < len(usual.regions_um)
    assert [text for _, text in _legend(other)][1::2] == ["region 224 µm", "bin patch 56 µm"]
    with open_slide(image) as slide:
        pages = [
            np.asarray(draw_overlay(slide, MPP, bins_on(TISSUE_BOX_PX), title=["S"], sizes=sizes))
            for sizes in (GeometryConfig(), hest)
        ]
    assert pages[0].shape == pages[1].shape
    assert (pages[0] != pages[1]).any()


def test_mask_and_scale_bar() -> None:
    mask = covered_by(np.array([[2.5, 1.5]]), (6, 4), side_px=3)
    assert mask.sum() == 9
    assert mask[0:3, 1:4].all()
    assert [scale_bar_um(um) for um in (160, 600, 6500)] == [50, 200, 2000]


def test_command_goes_on_after_a_bad_slide_and_exits_with_1(tmp_path: Path, image: Path) -> None:
    (tmp_path / "broken.tif").write_bytes(b"not a slide")
    sheet = tmp_path / "samples.csv"
    Image.open(image).save(tmp_path / "tagged.tif", dpi=(50_800, 50_800))  # 0.5 µm/px
    sheet.write_text(f"slide_id,image,mpp\nA,broken.tif,0.5\nB,{image.name},2.0\nC,absent.tif,\nD,tagged.tif,2.0\n")
    result = CliRunner().invoke(app, ["inspect", "--samples", str(sheet), "--out", str(tmp_path / "pictures")])
    assert result.exit_code == 1
    broken, absent, conflict = result.stderr.splitlines()
    assert broken.startswith("A: failed: ")
    assert absent.startswith("C: failed: slide 'C': expected column 'image' of samples.csv to name an existing path")
    assert "2.0000 from samples.csv and 0.5000 from resolution tags" in conflict
    assert "B · patient B · hne_only" in result.stdout
    assert "· laid over the tissue" in result.stdout
    assert "no counts: the slide can be predicted" in result.stdout
    assert [path.name for path in (tmp_path / "pictures").iterdir()] == ["B.png"]


def test_synthetic_slide_has_no_warnings_and_real_slides_are_drawn(
    small_samples: Path, shared_data: Path, tmp_path: Path
) -> None:
    arguments = ["inspect", "--samples", str(small_samples), "--slide", "S1", "--out", str(tmp_path)]
    good = CliRunner().invoke(app, arguments)
    assert good.exit_code == 0
    assert "warning" not in good.stdout
    sheet = tmp_path / "samples.csv"
    sheet.write_text(f"slide_id,image\nCMU,{shared_data / 'CMU-1-Small-Region.svs'}\n")
    real = CliRunner().invoke(app, ["inspect", "--samples", str(sheet), "--out", str(tmp_path)])
    assert real.exit_code == 0
    assert "2,220 × 2,967 px" in real.stdout
    assert "0.4990 (OpenSlide property openslide.mpp-x)" in real.stdout
    assert (tmp_path / "CMU.png").is_file()

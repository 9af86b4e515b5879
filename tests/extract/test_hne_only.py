"""Slides without counts: bins where the tissue is, all levels without counts, and a store that can be read."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cache.store import Store
from extract.config import EmbeddingConfig, GeometryConfig, RunConfig
from extract.hne_only import bins_in_tissue
from extract.levels import lay_levels
from extract.pipeline import run
from magnet_core.errors import MagnetError
from magnet_core.slides import open_slide

MPP = 2.0
EOSIN = (215, 150, 190)


def write_slide(path: Path, *, tissue: bool = True, size_px: tuple[int, int] = (500, 400)) -> Path:
    """Write a white PNG with tissue from x = 100 to 300 and y = 200 to 350."""
    picture = np.full((size_px[1], size_px[0], 3), 245, np.uint8)
    if tissue:
        picture[200:350, 100:300] = EOSIN
    Image.fromarray(picture).save(path)
    return path


def test_bins_lie_on_the_lattice_where_their_centre_is_in_tissue(tmp_path: Path) -> None:
    with open_slide(write_slide(tmp_path / "a.png")) as slide:
        counts = bins_in_tissue(slide, MPP, slide_id="A")
    assert (counts.platform, len(counts.genes), counts.spots, counts.mpp) == ("hne_only", 0, None, None)
    for bin_um in (8, 16):
        assay = counts.bins[bin_um]
        assert assay.counts is None
        assert assay.pitch_um == bin_um
        x, y = assay.centres_px.T * MPP
        assert {*(x % bin_um), *(y % bin_um)} == {bin_um / 2}
        expected = (200 * MPP / bin_um) * (150 * MPP / bin_um)
        assert len(assay) == pytest.approx(expected, rel=0.1)
        assert (x.min(), x.max()) == pytest.approx((200, 600), abs=24)
        assert (y.min(), y.max()) == pytest.approx((400, 700), abs=24)
        column, row = int(x[7] // bin_um), int(y[7] // bin_um)
        assert assay.barcodes[7] == f"s_{bin_um:03d}um_{row:05d}_{column:05d}-1"
        assert len(set(assay.barcodes.tolist())) == len(assay)


def test_all_levels_are_laid_and_paired_without_counts(tmp_path: Path) -> None:
    with open_slide(write_slide(tmp_path / "a.png")) as slide:
        counts = bins_in_tissue(slide, MPP, slide_id="A")
    config = GeometryConfig(bins=300, spots=20, window=8)
    levels = {level.name: level for level in lay_levels(counts, MPP, config, slide_id="A")}
    assert set(levels) == {"bin_008um", "bin_016um", "spot", "centre", "region"}
    assert all(level.counts is None for level in levels.values())
    assert 300 <= len(levels["bin_008um"]) < 400
    for fine in ("bin_008um", "bin_016um"):
        for context, side_um in (("spot", 56.0), ("region", 128.0)):
            paired = levels[context].centres_um[levels[fine].pairs[context]]
            assert np.abs(paired - levels[fine].centres_um).max() <= side_um / 2


def test_a_slide_without_tissue_is_one_line(tmp_path: Path) -> None:
    with (
        open_slide(write_slide(tmp_path / "b.png", tissue=False)) as slide,
        pytest.raises(
            MagnetError, match=r"'B': expected H&E-stained tissue, .* found none on b\.png \(1\.0 × 0\.8 mm\)"
        ),
    ):
        bins_in_tissue(slide, MPP, slide_id="B")


def test_a_run_stores_the_slide_and_names_the_one_without_tissue(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write_slide(tmp_path / "a.png")
    write_slide(tmp_path / "b.png", tissue=False)
    (tmp_path / "samples.csv").write_text("slide_id,image,mpp\nA,a.png,2\nB,b.png,2\n")
    config = RunConfig(
        samples=tmp_path / "samples.csv",
        store=tmp_path / "store",
        geometry=GeometryConfig(targets=(8,), bins=60, spots=5, window=4, context_hops=0),
        embedding=EmbeddingConfig(backbone="timm:test_convnext", weights="random", token_grid=1),
    )
    summary = run(config)
    assert summary.written == ["A"]
    assert "expected H&E-stained tissue" in summary.failed["B"]
    assert caplog.text.count("A: the slide's 2 µm/px are enlarged 8 times") == 1
    geometry = Store(tmp_path / "store").geometry("A")
    assert geometry.read("genes/id").shape == (0,)
    assert not any("counts" in name for name in geometry.names())
    assert len(geometry.read("bin_008um/pixels")) == len(geometry.read("bin_008um/barcode")) >= 60
    assert run(config).unchanged == ["A"]


@pytest.mark.parametrize("target", [16, 55])
def test_tissue_that_the_rim_of_the_image_cuts_is_stored(target: int, tmp_path: Path) -> None:
    picture = np.full((140, 150, 3), EOSIN, np.uint8)
    picture[:40, :40] = 245
    Image.fromarray(picture).save(tmp_path / "a.png")
    (tmp_path / "samples.csv").write_text("slide_id,image,mpp\nA,a.png,2\n")
    config = RunConfig(
        samples=tmp_path / "samples.csv",
        store=tmp_path / "store",
        geometry=GeometryConfig(targets=(target,), bins=30, spots=30, window=2),
        embedding=EmbeddingConfig(backbone="timm:test_convnext", weights="random", token_grid=1),
    )
    assert run(config).failed == {}
    regions_um = Store(tmp_path / "store").geometry("A").read("region/centres_um")
    assert (regions_um > (300, 280)).any()


def test_the_real_slide_has_bins_on_its_tissue(shared_data: Path) -> None:
    with open_slide(shared_data / "CMU-1-Small-Region.svs") as slide:
        assert slide.mpp is not None
        counts = bins_in_tissue(slide, slide.mpp, slide_id="CMU")
        pixels = slide.read_level(0, 0, 0, *slide.size_px)
    x, y = counts.bins[8].centres_px.astype(int).T
    assert 5_000 < len(counts.bins[8]) < 15_000
    assert np.median(pixels[y, x, 1]) < 170

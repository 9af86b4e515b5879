"""Scaled reading against a slow literal resampling of the whole slide, and its seams, borders and coordinates."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

from magnet_core.slides import ScaledSlide, SlideImage, open_slide, thumbnail


def picture(width: int, height: int, *, grain: int = 9) -> np.ndarray:
    coarse = np.random.default_rng(2).integers(0, 256, (height // grain + 2, width // grain + 2, 3), dtype=np.uint8)
    return np.asarray(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC))


@pytest.fixture
def slide(tmp_path: Path) -> Iterator[SlideImage]:
    """Three levels, 1, 2 and 4, of an odd size."""
    full = picture(701, 503)
    with tifffile.TiffWriter(tmp_path / "slide.tif") as tif:
        for factor in (1, 2, 4):
            size = (701 // factor, 503 // factor)
            level = np.asarray(Image.fromarray(full).resize(size, Image.Resampling.BOX)) if factor > 1 else full
            tif.write(level, tile=(64, 64), photometric="rgb", metadata=None, subfiletype=int(factor > 1))
    with open_slide(tmp_path / "slide.tif") as opened:
        yield opened


def cubic(t: np.ndarray) -> np.ndarray:
    """Keys' cubic kernel, a = -1/2."""
    t = np.abs(t)
    return np.where(t < 1, 1.5 * t**3 - 2.5 * t**2 + 1, np.where(t < 2, -0.5 * t**3 + 2.5 * t**2 - 4 * t + 2, 0))


def literal_resample(level: np.ndarray, step: float, size: tuple[int, int]) -> np.ndarray:
    """Every output pixel as a weighted mean of the white-padded level, the kernel widened to the step."""
    pad = 40
    values = np.pad(level.astype(float), ((pad, pad), (pad, pad), (0, 0)), constant_values=255)
    for axis, length in ((1, size[0]), (0, size[1])):
        centres = (np.arange(length) + 0.5) * step
        positions = np.arange(values.shape[axis]) - pad + 0.5
        weights = cubic((positions[None] - centres[:, None]) / max(step, 1.0))
        weights /= weights.sum(axis=1, keepdims=True)
        values = np.moveaxis(np.tensordot(weights, values, axes=(1, axis)), 0, axis)
        values = values.round().clip(0, 255)
    return values


@pytest.mark.parametrize(("mpp", "out_mpp", "level"), [(0.25, 0.4, 0), (0.25, 0.7, 1), (0.25, 1.3, 2), (0.5, 0.3, 0)])
def test_resampling_equals_the_literal_one_from_the_nearest_finer_level(
    slide: SlideImage, mpp: float, out_mpp: float, level: int
) -> None:
    scaled = ScaledSlide(slide, mpp, out_mpp)
    width, height = slide.level_sizes[level]
    pixels = slide.read_level(level, 0, 0, width, height)
    step = out_mpp / mpp / slide.downsamples[level]
    assert scaled.size_px == (round(701 * mpp / out_mpp), round(503 * mpp / out_mpp))
    assert scaled.scale == mpp / out_mpp
    read = scaled.read(0, 0, *scaled.size_px)
    difference = np.abs(read - literal_resample(pixels, step, scaled.size_px))
    assert difference.mean() < 0.2  # positions are rounded, by up to 1/100 of an output pixel
    assert difference.max() <= 2


def test_resampling_equals_the_literal_one_where_no_position_is_rounded(slide: SlideImage) -> None:
    for step in (0.625, 1.5):
        scaled = ScaledSlide(slide, 1.0, step)
        read = scaled.read(0, 0, *scaled.size_px)
        expected = literal_resample(slide.read_level(0, 0, 0, 701, 503), step, scaled.size_px)
        assert np.abs(read - expected).max() <= 2  # each axis rounds once
        assert np.abs(read - expected).mean() < 0.1


@pytest.mark.parametrize("out_mpp", [0.1, 0.274, 0.25, 0.5, 0.83, 6.1, 11.0])
def test_windows_join_without_a_seam(slide: SlideImage, out_mpp: float) -> None:
    scaled = ScaledSlide(slide, 0.25, out_mpp)
    width, height = scaled.size_px
    whole = scaled.read(-3, -3, width + 6, height + 6)
    cut_x, cut_y = width // 3, height // 2
    rows = []
    for y, h in ((-3, cut_y + 3), (cut_y, height + 3 - cut_y)):
        windows = [scaled.read(x, y, w, h) for x, w in ((-3, cut_x + 3), (cut_x, width + 3 - cut_x))]
        rows.append(np.concatenate(windows, axis=1))
    np.testing.assert_array_equal(np.concatenate(rows), whole)


@pytest.mark.parametrize("out_mpp", [0.25, 0.25 * 1.0009, 0.25 / 1.0009, 0.5, 1.0])
def test_no_resampling_where_a_level_has_the_resolution(slide: SlideImage, out_mpp: float) -> None:
    scaled = ScaledSlide(slide, 0.25, out_mpp)
    level = {0: 0, 1: 1, 2: 2}[round(np.log2(out_mpp / 0.25))]
    np.testing.assert_array_equal(scaled.read(-5, 40, 90, 80), slide.read_level(level, -5, 40, 90, 80))


@pytest.mark.parametrize("out_mpp", [0.25 * 1.0009, 0.25 / 1.0009, 0.3141, 0.137])
def test_nothing_drifts_over_a_long_slide(tmp_path: Path, out_mpp: float) -> None:
    """0.09% of 20,000 pixels is 18 pixels: a level that is copied, and rounded steps, must stay in place."""
    pixels = np.full((16, 20_000, 3), 255, np.uint8)
    pixels[:, 19_000:19_010] = 0
    tifffile.imwrite(tmp_path / "slide.tif", pixels, photometric="rgb", tile=(16, 512))
    with open_slide(tmp_path / "slide.tif") as slide:
        scaled = ScaledSlide(slide, 0.25, out_mpp)
        darkness = 255.0 - scaled.read(0, 4, scaled.size_px[0], 1)[0, :, 0]
    x = ((np.arange(len(darkness)) + 0.5) * darkness).sum() / darkness.sum()
    assert x / scaled.scale == pytest.approx(19_005, abs=1)


def test_coordinates_meet_the_pixels_they_name(tmp_path: Path) -> None:
    """A dark square at known level-0 pixels lies where `scale` says, at every resolution."""
    pixels = np.full((600, 800, 3), 255, np.uint8)
    pixels[410:450, 620:660] = 0
    tifffile.imwrite(tmp_path / "slide.tif", pixels, photometric="rgb", tile=(128, 128))
    with open_slide(tmp_path / "slide.tif") as slide:
        for out_mpp in (0.25, 0.25024, 0.137, 0.4, 1.7, 2.9):
            off = 0.8 if out_mpp == 0.25024 else 0.3  # there level 0 is copied, by whole pixels
            scaled = ScaledSlide(slide, 0.25, out_mpp)
            darkness = 255.0 - scaled.read(0, 0, *scaled.size_px)[..., 0]
            y, x = ((np.indices(darkness.shape) + 0.5) * darkness).sum((1, 2)) / darkness.sum()
            assert (x / scaled.scale, y / scaled.scale) == (pytest.approx(640, abs=off), pytest.approx(430, abs=off))


def test_shrinking_is_antialiased(tmp_path: Path) -> None:
    stripes = np.zeros((512, 512, 3), np.uint8)
    stripes[:, ::2] = 255
    tifffile.imwrite(tmp_path / "slide.tif", stripes, photometric="rgb", tile=(128, 128))
    with open_slide(tmp_path / "slide.tif") as slide:
        for out_mpp in (0.7, 3.3):  # without and with box means first
            inner = ScaledSlide(slide, 0.25, out_mpp).read(10, 10, 15, 15)
            assert np.abs(inner.astype(float) - 127.5).max() < 6


@pytest.mark.parametrize("max_px", [50, 333, 701, 5_000])
def test_thumbnail_is_the_whole_read_in_bands(slide: SlideImage, max_px: int, monkeypatch: pytest.MonkeyPatch) -> None:
    whole, scale = thumbnail(slide, max_px)
    assert whole.shape == (round(503 * scale), round(701 * scale), 3)
    assert scale == pytest.approx(min(1.0, max_px / 701))
    monkeypatch.setattr("magnet_core.slides.scaled.BAND_PX", 20_000)
    in_bands, _ = thumbnail(slide, max_px)
    np.testing.assert_array_equal(in_bands, whole)

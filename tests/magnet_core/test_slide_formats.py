"""Every format gives the pixels that were written, wherever the window lies; wrong files give one-line errors."""

import pickle
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import openslide
import pytest
import tifffile
from PIL import Image

from magnet_core.errors import MagnetError
from magnet_core.slides import open_slide
from magnet_core.slides.openslide_slide import OpenSlideSlide

WIDTH, HEIGHT = 301, 203
SVS_TEXT = "Aperio Image Library v1.0\r\n{0}x{1} [0,0 {0}x{1}] (240x240) JPEG/RGB Q=70|AppMag = 40|MPP = 0.2520"


def smooth_picture(width: int = WIDTH, height: int = HEIGHT) -> np.ndarray:
    coarse = np.random.default_rng(0).integers(0, 256, (height // 12 + 2, width // 12 + 2, 3), dtype=np.uint8)
    return np.asarray(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC))


PICTURE = smooth_picture()
HALF = np.asarray(Image.fromarray(PICTURE).resize((WIDTH // 2, HEIGHT // 2), Image.Resampling.BOX))
PLANES = np.ascontiguousarray(np.moveaxis(PICTURE, -1, 0))
TILED: dict[str, Any] = {"tile": (64, 48)}
CHANNELS: dict[str, Any] = {"photometric": "minisblack", "metadata": {"axes": "CYX"}}  # a page per channel


def write_tiff(path: Path, pixels: np.ndarray = PICTURE, **options: object) -> Path:
    tifffile.imwrite(path, pixels, **{"photometric": "rgb", "metadata": None, **options})
    return path


def write_pyramid(path: Path, *, sub_ifds: bool) -> Path:
    with tifffile.TiffWriter(path, bigtiff=True) as tif:
        tif.write(PICTURE, photometric="rgb", metadata=None, subifds=int(sub_ifds), **TILED)
        tif.write(HALF, photometric="rgb", metadata=None, subfiletype=1, **TILED)
    return path


def write_svs(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Write a two-level Aperio file whose downsample is not whole by size; return its levels as decoded."""
    full = smooth_picture(1301, 1503)
    quarter = np.asarray(Image.fromarray(full).resize((325, 375), Image.Resampling.BOX))
    with tifffile.TiffWriter(path) as tif:
        for pixels in (full, quarter):
            text = SVS_TEXT.format(pixels.shape[1], pixels.shape[0])
            tif.write(pixels, tile=(240, 240), compression="jpeg", photometric="rgb", description=text, metadata=None)
    return tifffile.imread(path, key=0), tifffile.imread(path, key=1)


LOSSLESS: dict[str, Callable[[Path], object]] = {
    "tiled.tif": lambda path: write_tiff(path, compression="deflate", predictor=True, **TILED),
    "tiled_raw.tif": lambda path: write_tiff(path, **TILED),
    "striped.btf": lambda path: write_tiff(path, bigtiff=True, rowsperstrip=16, compression="lzw"),
    "striped_raw.btf": lambda path: write_tiff(path, bigtiff=True, rowsperstrip=7),
    "one_strip.tif": lambda path: write_tiff(path, rowsperstrip=HEIGHT, compression="deflate"),
    "planes.tif": lambda path: write_tiff(path, PLANES, planarconfig="separate", **TILED),
    "planes_raw.tif": lambda path: write_tiff(path, PLANES, planarconfig="separate", rowsperstrip=9),
    "pages.ome.tif": lambda path: write_tiff(path, PLANES, **CHANNELS, **TILED),
    "pages_raw.ome.tif": lambda path: write_tiff(path, PLANES, **CHANNELS),
    "flat.png": lambda path: Image.fromarray(PICTURE).save(path),
    "pyramid.tif": lambda path: write_pyramid(path, sub_ifds=False),
    "pyramid_sub.ome.btf": lambda path: write_pyramid(path, sub_ifds=True),
}


@pytest.mark.parametrize("name", LOSSLESS)
def test_windows_give_the_written_pixels_and_white_outside(tmp_path: Path, name: str) -> None:
    LOSSLESS[name](tmp_path / name)
    padded = np.pad(PICTURE, ((50, 50), (50, 50), (0, 0)), constant_values=255)
    with open_slide(tmp_path / name) as slide:
        assert slide.size_px == (WIDTH, HEIGHT)
        for x, y, w, h in [
            (0, 0, WIDTH, HEIGHT),
            (47, 63, 2, 2),
            (-50, -50, 90, 70),
            (280, 190, 71, 63),
            (13, 5, 200, 99),
        ]:
            expected = padded[y + 50 : y + 50 + h, x + 50 : x + 50 + w]
            np.testing.assert_array_equal(slide.read_level(0, x, y, w, h), expected)
        assert (slide.read_level(0, 5_000, -9_000, 4, 4) == 255).all()


@pytest.mark.parametrize("sub_ifds", [False, True])
def test_both_kinds_of_pyramid_give_their_levels(tmp_path: Path, sub_ifds: bool) -> None:
    with open_slide(write_pyramid(tmp_path / "slide.tif", sub_ifds=sub_ifds)) as slide:
        assert slide.downsamples == (1.0, 2.0)  # whole, though 301 / 150 is not
        assert slide.level_sizes[1] == (WIDTH // 2, HEIGHT // 2)
        np.testing.assert_array_equal(slide.read_level(1, 20, 30, 60, 50), HALF[30:80, 20:80])


def test_jpeg_tiles_are_decoded_as_rgb(tmp_path: Path) -> None:
    path = write_tiff(tmp_path / "slide.tif", compression="jpeg", compressionargs={"level": 95}, tile=(64, 48))
    with tifffile.TiffFile(path) as tif:
        assert tif.pages[0].photometric.name == "YCBCR"
    with open_slide(path) as slide:
        read = slide.read_level(0, 0, 0, WIDTH, HEIGHT).astype(int)
    assert np.abs(read - PICTURE).mean() < 2
    flat = tmp_path / "slide.jpg"
    Image.fromarray(PICTURE).save(flat, quality=95)
    with open_slide(flat) as slide:
        np.testing.assert_array_equal(slide.read_level(0, 0, 0, WIDTH, HEIGHT), np.asarray(Image.open(flat)))


def test_scanner_files_go_through_openslide_and_every_level_is_exact(tmp_path: Path) -> None:
    levels = write_svs(tmp_path / "slide.svs")
    with open_slide(tmp_path / "slide.svs") as slide:
        assert type(slide).__name__ == "OpenSlideSlide"
        assert slide.downsamples == (1.0, 4.0)
        assert (slide.mpp, slide.mpp_source) == (0.252, "OpenSlide property openslide.mpp-x")
        for number, level in enumerate(levels):
            np.testing.assert_array_equal(slide.read_level(number, 101, 50, 70, 60), level[50:110, 101:171])


def write_fractional(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Write a generic pyramid whose second level is 2.0004 times smaller; return its levels."""
    full, half = smooth_picture(2401, 1800), smooth_picture(1200, 900)
    with tifffile.TiffWriter(path) as tif:
        for number, pixels in enumerate((full, half)):
            tif.write(pixels, tile=(256, 256), photometric="rgb", metadata=None, subfiletype=number)
    return full, half


def test_a_level_with_a_fractional_downsample_is_read_as_it_is_stored(tmp_path: Path) -> None:
    levels = write_fractional(tmp_path / "slide.tif")
    with OpenSlideSlide(tmp_path / "slide.tif") as slide:
        for number, level in enumerate(levels):
            whole = slide.read_level(number, 0, 0, level.shape[1], level.shape[0])
            np.testing.assert_array_equal(whole, level)
            np.testing.assert_array_equal(slide.read_level(number, 1101, 701, 70, 60), level[701:761, 1101:1171])
    with openslide.OpenSlide(tmp_path / "slide.tif") as raw:  # why such a level is read from its corner
        x = round(1101 * raw.level_downsamples[1])
        shifted = np.asarray(raw.read_region((x, 0), 1, (70, 60)).convert("RGB"))
        assert (shifted != levels[1][:60, 1101:1171]).any()


def test_a_fractional_level_too_large_to_hold_is_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    full, _ = write_fractional(tmp_path / "slide.tif")
    monkeypatch.setattr("magnet_core.slides.openslide_slide.MAX_WHOLE_PX", 1200 * 900 - 1)
    with OpenSlideSlide(tmp_path / "slide.tif") as slide:
        assert (slide.level_sizes, slide.downsamples) == (((2401, 1800),), (1.0,))
        np.testing.assert_array_equal(slide.read_level(0, 1101, 701, 70, 60), full[701:761, 1101:1171])


def test_a_coarse_level_is_the_same_in_every_window_across_blocks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("magnet_core.slides.openslide_slide.BLOCK_PX", 100)
    full, half = smooth_picture(1302, 1504), smooth_picture(651, 752)
    with tifffile.TiffWriter(tmp_path / "slide.tif") as tif:
        for number, pixels in enumerate((full, half)):
            tif.write(pixels, tile=(256, 256), photometric="rgb", metadata=None, subfiletype=number)
    with OpenSlideSlide(tmp_path / "slide.tif") as slide:
        for x, y in [(0, 0), (99, 101), (150, 33), (260, 310)]:
            np.testing.assert_array_equal(slide.read_level(1, x, y, 65, 65), half[y : y + 65, x : x + 65])


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("alpha.png", None),
        ("alpha.tif", {"extrasamples": ["unassalpha"]}),
        ("premultiplied.tif", {"extrasamples": ["assocalpha"]}),
    ],
)
def test_transparency_is_composed_on_white(tmp_path: Path, name: str, options: dict[str, object] | None) -> None:
    alpha = np.full((HEIGHT, WIDTH, 1), 255, np.uint8)
    alpha[:, :100], alpha[:, 100:200] = 0, 128
    fraction = alpha / 255.0
    expected = PICTURE * fraction + 255 * (1 - fraction)
    premultiplied = options is not None and options["extrasamples"] == ["assocalpha"]
    colour = (PICTURE * fraction).round().astype(np.uint8) if premultiplied else PICTURE
    stored = np.concatenate([colour, alpha], axis=-1)
    if options is None:
        Image.fromarray(stored).save(tmp_path / name)
    else:
        write_tiff(tmp_path / name, stored, **TILED, **options)
    with open_slide(tmp_path / name) as slide:
        assert np.abs(slide.read_level(0, 0, 0, WIDTH, HEIGHT) - expected).max() <= 2


@pytest.mark.parametrize(
    ("name", "photometric"), [("grey.png", ""), ("grey.tif", "minisblack"), ("grey.tif", "miniswhite")]
)
def test_greyscale_becomes_rgb(tmp_path: Path, name: str, photometric: str) -> None:
    grey = PICTURE[..., 0]
    if photometric:
        write_tiff(tmp_path / name, grey, photometric=photometric, **TILED)
    else:
        Image.fromarray(grey).save(tmp_path / name)
    expected = 255 - grey if photometric == "miniswhite" else grey
    with open_slide(tmp_path / name) as slide:
        read = slide.read_level(0, 3, 4, 50, 40)
    np.testing.assert_array_equal(read, np.repeat(expected[4:44, 3:53, None], 3, axis=2))


def test_a_tile_that_a_sparse_file_leaves_out_is_white(tmp_path: Path) -> None:
    path = write_tiff(tmp_path / "sparse.tif", compression="deflate", tile=(64, 64))
    with tifffile.TiffFile(path, mode="r+") as tif:
        counts = list(tif.pages[0].databytecounts)
        counts[1] = 0
        tif.pages[0].tags["TileByteCounts"].overwrite(counts)
    with open_slide(path) as slide:
        read = slide.read_level(0, 0, 0, 192, 64)
    assert (read[:, 64:128] == 255).all()
    np.testing.assert_array_equal(read[:, 128:], PICTURE[:64, 128:192])


def test_only_the_touched_tiles_are_decoded(tmp_path: Path) -> None:
    path = write_tiff(tmp_path / "damaged.tif", compression="deflate", tile=(64, 64))
    with tifffile.TiffFile(path) as tif:
        offset = tif.pages[0].dataoffsets[7]  # the third tile of the second row
    with path.open("r+b") as file:
        file.seek(offset)
        file.write(b"\xff" * 64)
    with open_slide(path) as slide:
        np.testing.assert_array_equal(slide.read_level(0, 0, 64, 128, 64), PICTURE[64:128, :128])
        with pytest.raises(MagnetError, match=r"damaged\.tif: expected readable pixels at x=120, y=70 of level 0"):
            slide.read_level(0, 120, 70, 20, 20)


@pytest.mark.parametrize("name", ["tiled.tif", "striped.btf", "striped_raw.btf", "flat.png"])
def test_a_file_cut_short_is_one_line_and_no_wrong_pixels(tmp_path: Path, name: str) -> None:
    LOSSLESS[name](tmp_path / name)
    content = (tmp_path / name).read_bytes()
    for kept in (len(content) - 40, len(content) // 2, 300, 20):
        (tmp_path / name).write_bytes(content[:kept])
        with pytest.raises(MagnetError, match=name) as caught, open_slide(tmp_path / name) as slide:
            slide.read_level(0, 0, 0, WIDTH, HEIGHT)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "write", "found"),
    [
        ("deep.tif", lambda p: write_tiff(p, PICTURE.astype(np.uint16), **TILED), "uint16"),
        ("deep.png", lambda p: Image.fromarray(PICTURE[..., 0].astype(np.uint16)).save(p), "I;16"),
        ("float.tif", lambda p: write_tiff(p, PICTURE.astype(np.float32), **TILED), "float32"),
        ("stack.ome.tif", lambda p: write_tiff(p, np.zeros((5, 70, 70), np.uint8), **CHANNELS), "5 channel"),
        ("cmyk.jpg", lambda p: Image.fromarray(PICTURE).convert("CMYK").save(p), "CMYK"),
    ],
)  # fmt: skip
def test_other_pixels_than_8_bit_colour_are_refused_by_name(
    tmp_path: Path, name: str, write: Callable[[Path], object], found: str
) -> None:
    write(tmp_path / name)
    with pytest.raises(MagnetError, match=f"{name}: expected an 8-bit .*{found}"):
        open_slide(tmp_path / name)


def test_colours_that_tifffile_leaves_alone_are_openslides(tmp_path: Path) -> None:
    path = write_tiff(tmp_path / "slide.tif", np.full((64, 64, 3), 128, np.uint8), photometric="ycbcr", tile=(64, 64))
    with open_slide(path) as slide:
        assert type(slide).__name__ == "OpenSlideSlide"
        assert np.abs(slide.read_level(0, 0, 0, 64, 64).astype(int) - 128).max() <= 1


def test_an_unreadable_file_says_what_was_tried(tmp_path: Path) -> None:
    (tmp_path / "slide.svs").write_text("not an image")
    with pytest.raises(MagnetError, match=r"slide\.svs: expected .*Pillow: cannot identify.*OpenSlide: "):
        open_slide(tmp_path / "slide.svs")
    (tmp_path / "slide.tif").write_bytes(b"II*\0" + b"\xff\0\0\0" + b"\0" * 40)
    with pytest.raises(MagnetError, match=r"slide\.tif: .*tifffile: .*OpenSlide: "):
        open_slide(tmp_path / "slide.tif")
    for path, found in ((tmp_path / "absent.svs", "nothing there"), (tmp_path, "a folder")):
        with pytest.raises(MagnetError, match=found):
            open_slide(path)


def test_pillows_pixel_limit_is_lifted_for_the_slide_and_restored(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    Image.fromarray(PICTURE).save(tmp_path / "slide.png")
    with open_slide(tmp_path / "slide.png") as slide:
        assert slide.size_px == (WIDTH, HEIGHT)
    assert Image.MAX_IMAGE_PIXELS == 100


@pytest.mark.parametrize("name", ["tiled.tif", "striped.btf", "flat.png", "svs"])
def test_reading_is_thread_safe_and_a_pickled_slide_reopens(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    if name == "svs":
        write_svs(path)
    else:
        LOSSLESS[name](path)
    windows = [(int(x), int(y)) for x, y in np.random.default_rng(1).integers(0, 150, (200, 2))]
    with open_slide(path) as slide, pickle.loads(pickle.dumps(slide)) as reopened, ThreadPoolExecutor(8) as pool:
        one_by_one = [reopened.read_level(0, x, y, 40, 30) for x, y in windows]
        at_once = list(pool.map(lambda xy: slide.read_level(0, xy[0], xy[1], 40, 30), windows))
        assert reopened.mpp_source == slide.mpp_source
    np.testing.assert_array_equal(at_once, one_by_one)


def test_the_real_svs_sample() -> None:
    path = Path(__file__).parents[3] / "shared/data/CMU-1-Small-Region.svs"
    if not path.is_file():
        pytest.skip("the sample is not here")
    with open_slide(path) as slide, tifffile.TiffFile(path) as tif:
        assert (slide.size_px, slide.mpp) == ((2220, 2967), 0.499)
        np.testing.assert_array_equal(
            slide.read_level(0, 700, 900, 300, 200), tif.pages[0].asarray()[900:1100, 700:1000]
        )

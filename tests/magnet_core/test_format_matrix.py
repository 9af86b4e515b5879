"""Each format of image is read as an independent decoder has it, or refused in one line with the way out."""

import struct
import zlib
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import pytest
import tifffile
from PIL import Image

from magnet_core.errors import MagnetError
from magnet_core.slides import open_slide

W, H = 90, 70
COARSE = np.random.default_rng(0).integers(0, 256, (8, 10, 3), dtype=np.uint8)
RGB = np.asarray(Image.fromarray(COARSE).resize((W, H), Image.Resampling.BICUBIC))
GREY = np.ascontiguousarray(RGB[..., 0])
PLANES = np.ascontiguousarray(np.moveaxis(RGB, -1, 0))
TILED: dict[str, Any] = {"tile": (32, 48)}
STRIPED: dict[str, Any] = {"rowsperstrip": 16}
Write = Callable[[Path], object]


def tiff(pixels: np.ndarray = RGB, **options: object) -> Write:
    settings: dict[str, Any] = {"photometric": "rgb", "metadata": None, **options}
    return lambda path: tifffile.imwrite(path, pixels, **settings)


def pillow(pixels: np.ndarray = RGB, mode: str = "", **options: Any) -> Write:
    image = Image.fromarray(pixels)
    return lambda path: (image.convert(mode) if mode else image).save(path, **options)


def as_rgb(pixels: np.ndarray) -> np.ndarray:
    return pixels if pixels.ndim == 3 else np.repeat(pixels[..., None], 3, axis=2)


def by_tifffile(path: Path) -> np.ndarray:
    return as_rgb(tifffile.imread(path))


def by_pillow(path: Path) -> np.ndarray:
    return np.asarray(Image.open(path).convert("RGB"))


def read(path: Path) -> np.ndarray:
    with open_slide(path) as slide:
        return slide.read_level(0, 0, 0, *slide.size_px)


LOSSLESS = [
    "none",
    "lzw",
    "adobe_deflate",
    "deflate",
    "packbits",
    "zstd",
    "lzma",
    "png",
    "jpeg2000",
    "aperio_jp2000_rgb",
]
LOSSLESS += ["aperio_jp2000_ycbc", "jpeg_2000_lossy", "jpegxl", "jpegxl_dng", "webp"]
COMPRESSED = {
    f"{compression}-{layout}-{order}-{'big' if big else 'classic'}": tiff(
        compression=compression, byteorder=order, bigtiff=big, **segments
    )
    for compression in [*LOSSLESS, "jpeg", "jpeg_lossy"]
    for layout, segments, order, big in (("tiles", TILED, "<", False), ("strips", STRIPED, ">", True))
}


@pytest.mark.parametrize("name", COMPRESSED)
def test_compressions(tmp_path: Path, name: str) -> None:
    COMPRESSED[name](tmp_path / "slide.tif")
    pixels = read(tmp_path / "slide.tif")
    np.testing.assert_array_equal(pixels, by_tifffile(tmp_path / "slide.tif"))
    if not name.startswith("jpeg-") and not name.startswith("jpeg_lossy"):
        np.testing.assert_array_equal(pixels, RGB)
    else:
        assert np.abs(pixels.astype(int) - RGB).mean() < 5


BITS = {bits: (GREY.astype(int) * (2**bits - 1) // 255).astype(np.uint8) for bits in (2, 4)}
READ: dict[str, tuple[Write, Callable[[Path], np.ndarray]]] = {
    "predictor": (tiff(compression="lzw", predictor=True, **TILED), by_tifffile),
    "planes in tiles": (tiff(PLANES, planarconfig="separate", compression="zstd", **TILED), lambda _: RGB),
    "planes in strips": (tiff(PLANES, planarconfig="separate", byteorder=">", **STRIPED), lambda _: RGB),
    "grey 8": (tiff(GREY, photometric="minisblack", compression="jpegxl", **TILED), by_tifffile),
    "grey 8 of Pillow": (pillow(GREY), by_pillow),
    "white is 0": (tiff(GREY, photometric="miniswhite", **TILED), lambda _: as_rgb(255 - GREY)),
    "grey 1": (tiff(GREY > 99, photometric="minisblack"), by_pillow),
    "grey 1, white is 0": (tiff(GREY > 99, photometric="miniswhite"), by_pillow),
    "fax": (pillow(GREY, "1", compression="group4"), by_pillow),
    "grey 2": (tiff(BITS[2], photometric="minisblack", bitspersample=2), by_pillow),
    "grey 4": (tiff(BITS[4], photometric="minisblack", bitspersample=4, **STRIPED), by_pillow),
    "grey 4 in tiles": (tiff(BITS[4], photometric="minisblack", bitspersample=4, **TILED), by_pillow),
    "grey 2, white is 0": (tiff(BITS[2], photometric="miniswhite", bitspersample=2), by_pillow),
    "palette": (pillow(RGB, "P"), by_pillow),
    "palette, lzw": (pillow(RGB, "P", compression="tiff_lzw"), by_pillow),
    "jpeg of Pillow": (pillow(RGB, compression="jpeg"), by_pillow),
    "deflate of Pillow": (pillow(RGB, compression="tiff_adobe_deflate"), by_pillow),
    "associated alpha": (
        tiff(np.dstack([GREY // 2] * 3 + [np.full_like(GREY, 255)]), extrasamples=["assocalpha"], **TILED),
        lambda _: as_rgb(GREY // 2),
    ),
    "unassociated alpha": (
        tiff(np.dstack([RGB, np.full_like(GREY, 255)]), extrasamples=["unassalpha"], compression="lzw"),
        lambda _: RGB,
    ),
    "spare channel": (tiff(np.dstack([RGB, GREY]), extrasamples=["unspecified"], **TILED), lambda _: RGB),
}
FLAT: dict[str, Write] = {
    "rgb.png": pillow(),
    "grey.png": pillow(GREY),
    "palette.png": pillow(RGB, "P"),
    "one_bit.png": pillow(GREY, "1"),
    "grey.jpg": pillow(GREY, quality=90),
    "rgb.jpg": pillow(quality=90, subsampling=2),
    "progressive.jpg": pillow(quality=90, progressive=True),
    "rgb.jp2": pillow(),
    "rgb.webp": pillow(lossless=True),
    "rgb.bmp": pillow(),
}


@pytest.mark.parametrize("name", READ)
def test_layouts_and_colours(tmp_path: Path, name: str) -> None:
    write, reference = READ[name]
    write(tmp_path / "slide.tif")
    np.testing.assert_array_equal(read(tmp_path / "slide.tif"), reference(tmp_path / "slide.tif"))


@pytest.mark.parametrize("name", FLAT)
def test_flat_images(tmp_path: Path, name: str) -> None:
    FLAT[name](tmp_path / name)
    np.testing.assert_array_equal(read(tmp_path / name), by_pillow(tmp_path / name))


@pytest.mark.parametrize("suffix", ["png", "jpg"])
def test_an_orientation_of_exif_is_told_and_not_applied(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, suffix: str
) -> None:
    exif = Image.Exif()
    exif[274] = 6  # turned by a quarter
    path = tmp_path / f"turned.{suffix}"
    Image.fromarray(RGB).save(path, exif=exif)
    np.testing.assert_array_equal(read(path), by_pillow(path))
    assert f"turned.{suffix}: EXIF orientation 6 is not applied" in caplog.text


WIDE = (RGB.astype(np.uint16) * 257, GREY.astype(np.uint16) * 257)
REFUSED: dict[str, tuple[Write, str]] = {
    "16 bit RGB.tif": (tiff(WIDE[0], **TILED), "uint16.*vips"),
    "16 bit grey.tif": (tiff(WIDE[1], photometric="minisblack"), "uint16.*vips"),
    "16 bit grey.png": (pillow(WIDE[1]), "I;16.*convert it to 8-bit RGB"),
    "float.tif": (tiff(RGB.astype(np.float32)), "float32.*vips"),
    "cmyk.tif": (pillow(RGB, "CMYK"), "SEPARATED colour.*convert it"),
    "cmyk.jpg": (pillow(RGB, "CMYK"), "CMYK.*convert it to 8-bit RGB"),
    "grey and alpha.tif": (pillow(np.dstack([GREY, GREY])), "2 channel.*vips"),
    "lab.tif": (tiff(photometric="cielab"), "CIELAB colour.*convert it"),
    "jpegxr.tif": (tiff(compression="jpegxr", **TILED), "compression 34934, JPEGXR.*vips"),
    "lerc.tif": (tiff(compression="lerc", **TILED), "compression 34887, LERC.*vips"),
    "picture.gif": (pillow(RGB, "P"), "none of those tried can"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_other_images_are_refused_with_the_way_out(tmp_path: Path, name: str) -> None:
    write, said = REFUSED[name]
    write(tmp_path / name)
    with pytest.raises(MagnetError, match=said) as caught:
        read(tmp_path / name)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", [*(f"{key}.tif" for key in COMPRESSED), *FLAT])
def test_a_file_cut_short_is_never_read_as_whole(tmp_path: Path, name: str) -> None:
    (FLAT[name] if name in FLAT else COMPRESSED[name.removesuffix(".tif")])(tmp_path / name)
    whole, pixels = (tmp_path / name).read_bytes(), read(tmp_path / name)
    for kept in (len(whole) * 9 // 10, len(whole) // 2, 60, 9):
        (tmp_path / name).write_bytes(whole[:kept])
        try:
            again = read(tmp_path / name)
        except MagnetError as error:
            assert "\n" not in str(error)  # noqa: PT017
        else:
            np.testing.assert_array_equal(again, pixels)  # what was cut off held no pixels


def png_that_claims(width: int, height: int) -> bytes:
    header = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunks = (header, b"IDAT" + zlib.compress(bytes(1000)), b"IEND")
    framed = [struct.pack(">I", len(c) - 4) + c + struct.pack(">I", zlib.crc32(c)) for c in chunks]
    return b"\x89PNG\r\n\x1a\n" + b"".join(framed)


def test_a_flat_image_too_large_for_memory_says_the_limit_and_the_way_out(tmp_path: Path) -> None:
    (tmp_path / "bomb.png").write_bytes(png_that_claims(60_000, 50_000))
    with pytest.raises(MagnetError, match=r"at most 268,435,456 pixels.*found 60,000 × 50,000 .*vips tiffsave"):
        open_slide(tmp_path / "bomb.png")


def test_a_box_of_jpeg_2000_that_claims_gigabytes_is_one_line(tmp_path: Path) -> None:
    FLAT["rgb.jp2"](tmp_path / "slide.jp2")
    whole = (tmp_path / "slide.jp2").read_bytes()
    at = whole.index(b"ihdr") - 4
    (tmp_path / "slide.jp2").write_bytes(whole[:at] + b"\xff\xff\x00\x0d" + whole[at + 4 :])
    with pytest.raises(MagnetError, match=r"slide\.jp2: .*none of those tried can") as caught:
        read(tmp_path / "slide.jp2")
    assert "\n" not in str(caught.value)


def test_strips_too_large_for_memory_say_the_limit_and_the_way_out(tmp_path: Path) -> None:
    bomb = imagecodecs.zlib_encode(bytes(3 * 4_000 * 1_000))
    shape = {"shape": (40_000, 40_000, 3), "dtype": np.uint8, "rowsperstrip": 40_000, "compression": "deflate"}
    tifffile.imwrite(tmp_path / "bomb.tif", iter([bomb]), photometric="rgb", metadata=None, bigtiff=True, **shape)
    with pytest.raises(MagnetError, match="at most 1,024 MiB, found such of 40,000 × 40,000 pixels, 4,577 MiB; .*vips"):
        open_slide(tmp_path / "bomb.tif")


LARGE = np.full((2_000, 3_000, 3), 255, np.uint8)
CODED: dict[int, Callable[[np.ndarray], bytes | bytearray]] = {
    7: lambda pixels: imagecodecs.jpeg_encode(pixels, colorspace="RGB", outcolorspace="RGB"),
    34712: lambda pixels: imagecodecs.jpeg2k_encode(pixels, level=0, codecformat="j2k"),
    33005: lambda pixels: imagecodecs.jpeg2k_encode(pixels, level=0, codecformat="jp2"),
    34933: imagecodecs.png_encode,
    50001: lambda pixels: imagecodecs.webp_encode(pixels, lossless=True),
    50002: lambda pixels: imagecodecs.jpegxl_encode(pixels, effort=1),
    52546: lambda pixels: imagecodecs.jpegxl_encode(pixels, effort=1, usecontainer=True),
}


@pytest.mark.parametrize("compression", CODED)
def test_a_tile_that_states_another_size_of_itself_is_not_decoded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, compression: int
) -> None:
    tile = CODED[compression](LARGE)
    shape: dict[str, Any] = {"shape": (64, 64, 3), "dtype": np.uint8, "tile": (64, 64), "compression": compression}
    tifffile.imwrite(tmp_path / "bomb.tif", iter([tile]), photometric="rgb", metadata=None, **shape)
    if compression != 7:  # whose decoder compares sizes itself

        def decode(*_: object, **__: object) -> None:
            pytest.fail("it was decoded")

        monkeypatch.setattr(tifffile.TiffPage, "decode", decode)
    with pytest.raises(MagnetError, match=r"bomb\.tif: .*(states 3,000 × 2,000 pixels|mismatch.*3000x2000)"):
        read(tmp_path / "bomb.tif")


def test_pillow_starts_no_other_program(tmp_path: Path) -> None:
    stream = BytesIO()
    Image.fromarray(RGB).save(stream, "EPS")
    (tmp_path / "slide.png").write_bytes(stream.getvalue())
    with pytest.raises(MagnetError, match="cannot identify image file"):
        open_slide(tmp_path / "slide.png")

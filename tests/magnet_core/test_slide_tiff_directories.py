"""Claims of a TIFF's directories are judged before any library allocates by them; loops end."""

import struct
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import openslide
import pytest
import tifffile

from magnet_core.errors import MagnetError
from magnet_core.slides import open_slide
from magnet_core.slides.tiff_directories import check_directories

PIXELS = np.random.default_rng(0).integers(0, 256, (60, 80, 3), dtype=np.uint8)


def write(path: Path, **options: object) -> Path:
    tifffile.imwrite(path, PIXELS, **{"photometric": "rgb", "metadata": None, "tile": (16, 16), **options})
    return path


def overwrite_counts(path: Path, tag: str, counts: tuple[int, ...], *, big: bool) -> Iterator[int]:
    """Set the count of a tag to one after the other."""
    with tifffile.TiffFile(path) as tif:
        offset, order = tif.pages[0].tags[tag].offset, tif.byteorder
    for count in counts:
        with path.open("r+b") as file:
            file.seek(offset + 4)
            file.write(struct.pack(f"{order}{'Q' if big else 'I'}", count))
        yield count


@pytest.mark.parametrize("big", [False, True])
@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("tag", ["TileOffsets", "TileByteCounts", "BitsPerSample", "XResolution", "Software"])
def test_a_tag_that_claims_more_than_the_file_holds(tmp_path: Path, tag: str, order: str, big: bool) -> None:
    path = write(tmp_path / "slide.tif", byteorder=order, bigtiff=big, software="a program of some name")
    check_directories(path)
    for count in overwrite_counts(path, tag, (20_000, 2**31, 2**60 if big else 2**32 - 1), big=big):
        with pytest.raises(MagnetError, match=rf"tags that fit into its .*found tag \d+ with {count:,} values"):
            open_slide(path)


def test_lists_longer_than_any_slide_has_are_refused_however_large_the_file(tmp_path: Path) -> None:
    path = write(tmp_path / "slide.tif", bigtiff=True)
    assert [*overwrite_counts(path, "TileOffsets", (2**23,), big=True)]
    with path.open("r+b") as file:
        file.truncate(2**30)  # sparse: nothing is written
    with pytest.raises(MagnetError, match="longer lists than slides have, found tag 324 with 8,388,608 values"):
        open_slide(path)


def directory(order: str, tags: list[tuple[int, int, int, int]], following: int) -> bytes:
    entries = b"".join(struct.pack(f"{order}HHII", *tag) for tag in tags)
    return struct.pack(f"{order}H", len(tags)) + entries + struct.pack(f"{order}I", following)


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("below", [False, True])
def test_directories_that_point_at_themselves_are_one_line(tmp_path: Path, order: str, below: bool) -> None:
    magic = b"II*\0" if order == "<" else b"MM\0*"
    tags = [(256, 4, 1, 64), (257, 4, 1, 64), *([(330, 4, 1, 8)] if below else [])]
    following = 0 if below else 8
    (tmp_path / "loop.tif").write_bytes(magic + struct.pack(f"{order}I", 8) + directory(order, tags, following))
    with pytest.raises(MagnetError, match=r"loop\.tif: .*found such a one at byte 8; ") as caught:
        open_slide(tmp_path / "loop.tif")
    assert "\n" not in str(caught.value)


def test_more_directories_and_tags_than_a_slide_has(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with tifffile.TiffWriter(tmp_path / "stack.tif") as tif:
        for _ in range(6):
            tif.write(PIXELS, photometric="rgb", metadata=None)
    monkeypatch.setattr("magnet_core.slides.tiff_directories.MAX_DIRECTORIES", 6)
    check_directories(tmp_path / "stack.tif")
    monkeypatch.setattr("magnet_core.slides.tiff_directories.MAX_DIRECTORIES", 5)
    with pytest.raises(MagnetError, match="expected a TIFF with at most 5 images in a file, found more"):
        check_directories(tmp_path / "stack.tif")
    path = tmp_path / "tags.tif"
    path.write_bytes(b"II*\0" + struct.pack("<I", 8) + directory("<", [(256, 4, 1, 64)] * 5_000, 0))
    with pytest.raises(MagnetError, match="at most 4,096 tags of an image"):
        open_slide(path)


@pytest.mark.parametrize("big", [False, True])
def test_directories_below_others_are_looked_at_too(tmp_path: Path, big: bool) -> None:
    with tifffile.TiffWriter(tmp_path / "slide.tif", bigtiff=big) as tif:
        tif.write(PIXELS, photometric="rgb", metadata=None, subifds=2, tile=(16, 16))
        for step in (2, 4):
            tif.write(PIXELS[::step, ::step], photometric="rgb", metadata=None, subfiletype=1, tile=(16, 16))
    check_directories(tmp_path / "slide.tif")
    with tifffile.TiffFile(tmp_path / "slide.tif") as tif:
        offset = tif.series[0].levels[2].keyframe.tags["TileOffsets"].offset
    with (tmp_path / "slide.tif").open("r+b") as file:
        file.seek(offset + 4)
        file.write(struct.pack("<Q" if big else "<I", 2**31))
    with pytest.raises(MagnetError, match="found tag 324"):
        open_slide(tmp_path / "slide.tif")


def test_a_tile_that_claims_gigabytes_is_not_read(tmp_path: Path) -> None:
    path = write(tmp_path / "slide.tif", compression="deflate", bigtiff=True)
    with tifffile.TiffFile(path, mode="r+") as tif:
        sizes = list(tif.pages[0].databytecounts)
        tif.pages[0].tags["TileByteCounts"].overwrite([sizes[0], 2**45, *sizes[2:]], dtype="Q")
    with open_slide(path) as slide:
        np.testing.assert_array_equal(slide.read_level(0, 0, 0, 16, 16), PIXELS[:16, :16])
        with pytest.raises(MagnetError, match="the file ends within tile or strip 1"):
            slide.read_level(0, 16, 0, 16, 16)


@pytest.mark.parametrize("tag", ["ImageWidth", "TileWidth", "TileOffsets"])
def test_sizes_and_places_of_another_type_are_one_line(tmp_path: Path, tag: str) -> None:
    path = write(tmp_path / "slide.tif", compression="deflate")
    with tifffile.TiffFile(path) as tif:
        offset = tif.pages[0].tags[tag].offset
    with path.open("r+b") as file:
        file.seek(offset + 2)
        file.write(struct.pack("<H", 11))  # a number with a fraction
    with pytest.raises(MagnetError, match=r"slide\.tif: "), open_slide(path) as slide:
        slide.read_level(0, 0, 0, 80, 60)


@pytest.mark.parametrize("order", ["<", ">"])
def test_tiles_for_which_openslide_would_abort_are_refused(tmp_path: Path, order: str) -> None:
    text = "Aperio Image Library v1.0\r\n80x60 (16x16) JPEG/RGB Q=70"
    path = write(tmp_path / "slide.svs", compression="jpeg", description=text, byteorder=order)
    with tifffile.TiffFile(path, mode="r+") as tif:
        for tag in ("TileWidth", "TileLength"):
            tif.pages[0].tags[tag].overwrite(60_000)
    with pytest.raises(MagnetError, match="tiles of at most 268,435,456 pixels, found 60000 × 60000"):
        open_slide(path)


OME = (
    '<OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06"><Image ID="Image:0"><Pixels ID="Pixels:0" '
    'DimensionOrder="XYCZT" Type="uint8" SizeX="{x}" SizeY="60" SizeC="3" SizeZ="{z}" SizeT="1">'
    '<Channel ID="Channel:0:0" SamplesPerPixel="3"/><TiffData IFD="0" PlaneCount="{n}"/></Pixels></Image></OME>'
)


@pytest.mark.parametrize("claim", [{"n": 10**9}, {"z": 10**9}, {"x": 80 * 10**9}])
def test_ome_xml_that_claims_more_planes_than_memory_holds(tmp_path: Path, claim: dict[str, int]) -> None:
    xml = OME.format(**{"x": 80, "z": 1, "n": 1, **claim})
    path = write(tmp_path / "slide.ome.tif", description=xml, tile=None, rowsperstrip=16)
    with pytest.raises(MagnetError, match="its OME-XML claims "):
        open_slide(path)


def ndpi(tags: list[tuple[int, int, int, int]], following: int = 0, *, start: int = 16) -> bytes:
    """A file as Hamamatsu writes it: places of directories in 8 bytes, upper halves of values after a directory."""
    tags = sorted([*tags, (65420, 4, 1, 1)])  # by which it is known
    entries = b"".join(struct.pack("<HHII", *tag) for tag in tags)
    content = struct.pack("<H", len(tags)) + entries + struct.pack("<Q", following) + bytes(4 * len(tags))
    return (b"II*\0" + struct.pack("<Q", start)).ljust(start, b"\0") + content


SIZE = [(256, 4, 1, 64), (257, 4, 1, 64)]


def test_a_hamamatsu_file_is_looked_at_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "slide.ndpi"
    path.write_bytes(ndpi(SIZE))
    assert openslide.OpenSlide.detect_format(path) == "hamamatsu"
    check_directories(path, ndpi=True)
    for claim in ((273, 4, 2**31, 8), (65426, 4, 2**31, 8), (270, 2, 2**31, 8)):
        path.write_bytes(ndpi([*SIZE, claim]))
        with pytest.raises(MagnetError, match=rf"tags that fit into its .*found tag {claim[0]} with 2,147,483,648 val"):
            open_slide(path)
    path.write_bytes(ndpi(SIZE, following=16))
    with pytest.raises(MagnetError, match="images that do not follow upon themselves, found such a one at byte 16"):
        open_slide(path)
    monkeypatch.setattr("magnet_core.slides.tiff_directories.MAX_VALUES", 8)
    path.write_bytes(ndpi([*SIZE, (65426, 4, 9, 8)]))  # as many beginnings as there are
    check_directories(path, ndpi=True)


def test_directories_beyond_4_gb_of_a_hamamatsu_file_are_found(tmp_path: Path) -> None:
    path, start = tmp_path / "slide.ndpi", (1 << 32) + 64
    with path.open("wb") as file:
        file.write(ndpi([])[:4] + struct.pack("<Q", start))
        file.seek(start)  # sparse: nothing is written between
        file.write(ndpi([*SIZE, (322, 4, 1, 60_000), (323, 4, 1, 60_000)])[16:])
    with pytest.raises(MagnetError, match="tiles of at most"):
        check_directories(path, ndpi=True)

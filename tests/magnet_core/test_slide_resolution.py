"""A resolution is taken from a file only where the file states one that a microscope can have."""

from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

from magnet_core.slides import open_slide
from magnet_core.slides.resolution import from_ome, stated

PIXELS = np.zeros((64, 64, 3), np.uint8)
OME = '<OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06"><Image><Pixels {}/></Image></OME>'


@pytest.mark.parametrize(
    ("options", "mpp"),
    [
        ({"resolution": (40_000, 40_000), "resolutionunit": "CENTIMETER"}, 0.25),
        ({"resolution": (101_600, 101_600), "resolutionunit": "INCH"}, 0.25),
        ({"resolution": (72, 72), "resolutionunit": "INCH"}, None),
        ({"resolution": (96, 96), "resolutionunit": "INCH"}, None),
        ({"resolution": (40_000, 40_000), "resolutionunit": "NONE"}, None),
        ({"resolution": (40_000, 20_000), "resolutionunit": "CENTIMETER"}, None),
        ({"resolution": (0, 0), "resolutionunit": "CENTIMETER"}, None),
        ({"resolution": (4, 4), "imagej": True, "metadata": {"unit": "micron"}}, 0.25),
        ({}, None),
    ],
)
def test_tiff_tags(tmp_path: Path, options: dict[str, object], mpp: float | None) -> None:
    tifffile.imwrite(tmp_path / "slide.tif", PIXELS, photometric="rgb", **{"metadata": None, **options})
    with open_slide(tmp_path / "slide.tif") as slide:
        assert slide.mpp == (None if mpp is None else pytest.approx(mpp))
        assert slide.mpp_source


def test_ome_wins_over_tags(tmp_path: Path) -> None:
    size = {"axes": "YXS", "PhysicalSizeX": 0.5, "PhysicalSizeY": 0.5}
    tags = {"resolution": (40_000, 40_000), "resolutionunit": "CENTIMETER"}
    tifffile.imwrite(tmp_path / "slide.ome.tif", PIXELS, photometric="rgb", metadata=size, **tags)
    with open_slide(tmp_path / "slide.ome.tif") as slide:
        assert (slide.mpp, slide.mpp_source) == (0.5, "OME PhysicalSizeX")


@pytest.mark.parametrize(
    ("attributes", "mpp"),
    [
        ('PhysicalSizeX="0.25" PhysicalSizeY="0.25"', 0.25),
        ('PhysicalSizeX="250" PhysicalSizeXUnit="nm" PhysicalSizeY="0.25" PhysicalSizeYUnit="\u03bcm"', 0.25),
        ('PhysicalSizeX="2500" PhysicalSizeXUnit="\u00c5"', 0.25),
        ('PhysicalSizeX="2500" PhysicalSizeXUnit="\u212b"', 0.25),
        ('PhysicalSizeX="250000" PhysicalSizeXUnit="pm"', 0.25),
        ('PhysicalSizeX="0.00025" PhysicalSizeXUnit="mm" PhysicalSizeY="0.25"', 0.25),
        ('PhysicalSizeX="0.000025" PhysicalSizeXUnit="cm" PhysicalSizeY="0.000025" PhysicalSizeYUnit="cm"', 0.25),
        ('PhysicalSizeX="0.00001" PhysicalSizeXUnit="in"', 0.254),
        ('PhysicalSizeX="0.00025" PhysicalSizeXUnit="Mm"', None),
        ('PhysicalSizeX="1" PhysicalSizeXUnit="pixel"', None),
        ('PhysicalSizeX="wide"', None),
        ('SizeX="10"', None),
    ],
)
def test_ome_units(attributes: str, mpp: float | None) -> None:
    assert from_ome(OME.format(attributes), (64, 64)).mpp == (None if mpp is None else pytest.approx(mpp))


SLIDE_PX, MACRO_PX = np.full((96, 128, 3), 9, np.uint8), np.full((40, 50, 3), 200, np.uint8)


def write_after_macro(path: Path, macro_mpp: float | None, slide_mpp: float | None) -> None:
    with tifffile.TiffWriter(path) as tif:
        for pixels, mpp in ((MACRO_PX, macro_mpp), (SLIDE_PX, slide_mpp)):
            tags = {} if mpp is None else {"resolution": (1e4 / mpp, 1e4 / mpp), "resolutionunit": "CENTIMETER"}
            tif.write(pixels, photometric="rgb", metadata=None, **tags)


@pytest.mark.parametrize(("macro_mpp", "slide_mpp"), [(5.0, 0.25), (10.0, None), (None, 0.25)])
def test_tags_of_a_macro_before_the_slide_are_not_the_slides(
    tmp_path: Path, macro_mpp: float | None, slide_mpp: float | None
) -> None:
    write_after_macro(tmp_path / "slide.tif", macro_mpp, slide_mpp)
    with open_slide(tmp_path / "slide.tif") as slide:
        assert slide.size_px == (128, 96)
        assert slide.mpp == (None if slide_mpp is None else pytest.approx(slide_mpp))


def write_ome_after_macro(path: Path, macro: dict[str, float], slide: dict[str, float]) -> None:
    with tifffile.TiffWriter(path, ome=True) as tif:
        for pixels, size in ((MACRO_PX, macro), (SLIDE_PX, slide)):
            tif.write(pixels, photometric="rgb", metadata={"axes": "YXS", **size})


@pytest.mark.parametrize("order", [1, -1])
def test_ome_of_a_macro_beside_the_slide_is_not_the_slides(tmp_path: Path, order: int) -> None:
    macro, own = {"PhysicalSizeX": 10.0, "PhysicalSizeY": 10.0}, {"PhysicalSizeX": 0.25, "PhysicalSizeY": 0.25}
    with tifffile.TiffWriter(tmp_path / "slide.ome.tif", ome=True) as tif:
        for pixels, size in ((MACRO_PX, macro), (SLIDE_PX, own))[::order]:
            tif.write(pixels, photometric="rgb", metadata={"axes": "YXS", **size})
    with open_slide(tmp_path / "slide.ome.tif") as slide:
        assert (slide.size_px, slide.mpp) == ((128, 96), 0.25)


def test_ome_that_states_only_the_macros_resolution_states_none(tmp_path: Path) -> None:
    write_ome_after_macro(tmp_path / "slide.ome.tif", {"PhysicalSizeX": 10.0, "PhysicalSizeY": 10.0}, {})
    with open_slide(tmp_path / "slide.ome.tif") as slide:
        assert (slide.size_px, slide.mpp) == ((128, 96), None)
    two = '<OME><Pixels {0} PhysicalSizeX="0.2"/><Pixels {0} PhysicalSizeX="0.5"/></OME>'.format('SizeX="9" SizeY="8"')
    assert "state different ones" in from_ome(two, (9, 8)).source
    assert "none of its images has the slide's 10 × 8 pixels" in from_ome(two, (10, 8)).source


@pytest.mark.parametrize(
    ("unit", "per_unit"),
    [
        ("\\u00B5m", 4), ("\\u00b5m", 4), ("um", 4), ("micron", 4), ("microns", 4), ("Micron", 4), ("micrometer", 4),
        ("nm", 0.004), ("pm", 4e-6), ("mm", 4000), ("cm", 40_000), ("inch", 101_600), ("\\u00C5", 4e-4),
    ],
)  # fmt: skip
def test_units_in_the_descriptions_of_fiji_and_qupath(tmp_path: Path, unit: str, per_unit: float) -> None:
    tags = {"resolution": (per_unit, per_unit), "resolutionunit": "NONE"}
    text = f"ImageJ=1.54f\nunit={unit}\nloop=false\n"
    tifffile.imwrite(tmp_path / "slide.tif", PIXELS, photometric="rgb", metadata=None, description=text, **tags)
    with open_slide(tmp_path / "slide.tif") as slide:
        assert slide.mpp == pytest.approx(0.25, rel=1e-3)


def test_an_unknown_unit_is_named(tmp_path: Path) -> None:
    tags = {"resolution": (4, 4), "resolutionunit": "NONE"}
    for unit, source in (("furlong", "unit 'furlong' is not known"), ("pixel", "states no resolution")):
        text = f"ImageJ=1.54f\nunit={unit}\n"
        tifffile.imwrite(tmp_path / "slide.tif", PIXELS, photometric="rgb", metadata=None, description=text, **tags)
        with open_slide(tmp_path / "slide.tif") as slide:
            assert slide.mpp is None
            assert source in slide.mpp_source


def test_dots_per_inch_of_flat_images(tmp_path: Path) -> None:
    for dpi, mpp in ((72, None), (50_800, 0.5)):
        Image.fromarray(PIXELS).save(tmp_path / "slide.png", dpi=(dpi, dpi))
        with open_slide(tmp_path / "slide.png") as slide:
            assert slide.mpp == (None if mpp is None else pytest.approx(mpp, rel=1e-3))
    assert "352.8" in stated(25_400 / 72, 25_400 / 72, "resolution tags").source  # the error can show what was refused


def test_entities_in_ome_xml_are_never_expanded() -> None:
    laughs = "".join(f'<!ENTITY a{n} "{f"&a{n - 1};" * 10 if n else "ha"}">' for n in range(12))
    attributes = 'PhysicalSizeX="0.25" PhysicalSizeY="0.25"'
    xml = f"<!DOCTYPE OME [{laughs}]>{OME.format(attributes)}"
    assert from_ome(xml.replace("<Pixels", "&a11;<Pixels"), (64, 64)).mpp is None
    assert from_ome(OME.format(attributes), (64, 64)).mpp == 0.25

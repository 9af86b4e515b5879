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
        ('PhysicalSizeX="1" PhysicalSizeXUnit="pixel"', None),
        ('PhysicalSizeX="wide"', None),
        ('SizeX="10"', None),
    ],
)
def test_ome_units(attributes: str, mpp: float | None) -> None:
    assert from_ome(OME.format(attributes)).mpp == (None if mpp is None else pytest.approx(mpp))


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
    assert from_ome(xml.replace("<Pixels", "&a11;<Pixels")).mpp is None
    assert from_ome(OME.format(attributes)).mpp == 0.25

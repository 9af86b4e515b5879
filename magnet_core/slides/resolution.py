"""The resolution a file states about itself.

In: OpenSlide properties, TIFF resolution tags, OME-XML, dots per inch. Out: µm/px and where it stands, or None and why.
Nothing is guessed: screen and print defaults (72, 96, 300 dpi) and other values no microscope has count as absent.
"""

from dataclasses import dataclass
from xml.etree import ElementTree

MIN_MPP, MAX_MPP = 0.05, 20.0  # µm/px that a slide scanner can have
MAX_ANISOTROPY = 0.01  # larger differences of x and y are a mistake in the metadata, or not a square pixel

UM_PER_UNIT = {
    **{"inch": 25_400.0, "centimeter": 1e4},  # TIFF's ResolutionUnit
    **{"m": 1e6, "cm": 1e4, "mm": 1e3, "nm": 1e-3},  # OME and ImageJ
    **dict.fromkeys(("\u00b5m", "\u03bcm", "um", "micron"), 1.0),  # the micro sign, the Greek letter, and plain text
}


@dataclass(frozen=True)
class Resolution:
    """µm/px of level 0, or None; `source` says where it stands or why there is none."""

    mpp: float | None
    source: str


ABSENT = Resolution(None, "the file states no resolution")


def stated(x_mpp: float, y_mpp: float, source: str) -> Resolution:
    """Accept the stated µm/px of both axes if a microscope can have it and pixels are square."""
    if not (MIN_MPP <= x_mpp <= MAX_MPP and MIN_MPP <= y_mpp <= MAX_MPP):
        return Resolution(None, f"{source}: {x_mpp:.4g} × {y_mpp:.4g} µm/px is no microscope's resolution")
    if abs(x_mpp - y_mpp) > MAX_ANISOTROPY * min(x_mpp, y_mpp):
        return Resolution(None, f"{source}: x and y differ, {x_mpp:.4g} and {y_mpp:.4g} µm/px")
    return Resolution((x_mpp + y_mpp) / 2, source)


def from_pixels_per_unit(x: float, y: float, unit: str) -> Resolution:
    """Read TIFF's XResolution and YResolution in pixels per `unit`; an unknown unit states nothing."""
    if unit not in UM_PER_UNIT or not (x > 0 and y > 0):
        return ABSENT
    um = UM_PER_UNIT[unit]
    return stated(um / x, um / y, "resolution tags")


def from_ome(xml: str) -> Resolution:
    """Read PhysicalSizeX and PhysicalSizeY, with their units, of the first image of an OME-XML text."""
    if "<!DOCTYPE" in xml:  # which may declare entities that expand without end; OME-XML has none
        return ABSENT
    try:
        pixels = ElementTree.fromstring(xml).find(".//{*}Pixels")  # noqa: S314 without a DOCTYPE, nothing expands
    except ElementTree.ParseError:
        return ABSENT
    if pixels is None or "PhysicalSizeX" not in pixels.attrib:
        return ABSENT
    attributes = pixels.attrib
    x_text = attributes["PhysicalSizeX"]
    try:
        x, y = float(x_text), float(attributes.get("PhysicalSizeY", x_text))
    except ValueError:
        return Resolution(None, f"OME PhysicalSizeX: '{x_text}' is not a number")
    x_um = UM_PER_UNIT.get(attributes.get("PhysicalSizeXUnit", "µm"))
    y_um = UM_PER_UNIT.get(attributes.get("PhysicalSizeYUnit", "µm"))
    if x_um is None or y_um is None:
        return Resolution(None, "OME PhysicalSizeX: its unit is not a length")
    return stated(x * x_um, y * y_um, "OME PhysicalSizeX")


def first_stated(*candidates: Resolution) -> Resolution:
    """Return the first that holds a value; without one, the first that explains why."""
    ranked = [c for c in candidates if c.mpp is not None] or [c for c in candidates if c != ABSENT]
    return ranked[0] if ranked else ABSENT

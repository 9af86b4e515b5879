"""The resolution a file states about itself.

In: OpenSlide properties, TIFF resolution tags, OME-XML, dots per inch. Out: µm/px and where it stands, or None and why.
Nothing is guessed: screen and print defaults (72, 96, 300 dpi) and other values no microscope has count as absent. A
file may hold a label and an overview beside the slide: what is taken must be said of the image that is the slide.
"""

import re
import unicodedata
from dataclasses import dataclass
from xml.etree import ElementTree

MIN_MPP, MAX_MPP = 0.05, 20.0  # µm/px that a slide scanner can have
MAX_ANISOTROPY = 0.01  # larger differences of x and y are a mistake in the metadata, or not a square pixel

UM_PER_UNIT = {  # as `_spelled` spells them
    **{"m": 1e6, "dm": 1e5, "cm": 1e4, "mm": 1e3, "nm": 1e-3, "pm": 1e-6, "fm": 1e-9},  # OME and ImageJ
    **{"\u00c5": 1e-4, "in": 25_400.0, "ft": 304_800.0, "pt": 25_400 / 72, "thou": 25.4, "mil": 25.4},
    **{"inch": 25_400.0, "centimeter": 1e4, "millimeter": 1e3, "micrometer": 1.0},  # TIFF's ResolutionUnit
    **{"inches": 25_400.0, "angstrom": 1e-4, "nanometer": 1e-3},
    **dict.fromkeys(("\u03bcm", "um", "micron", "microns", "\u03bc", "micrometre"), 1.0),
}
NO_LENGTH = ("", "none", "pixel", "pixels", "reference frame")  # units that state no resolution, and mean none


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
    """Read TIFF's XResolution and YResolution in pixels per `unit`; "pixel" and the like state nothing."""
    if not (x > 0 and y > 0) or _spelled(unit).lower() in NO_LENGTH:
        return ABSENT
    um = _um_per(unit)
    if um is None:
        return Resolution(None, f"resolution tags: their unit '{unit:.20}' is not known")
    return stated(um / x, um / y, "resolution tags")


def from_ome(xml: str, size_px: tuple[int, int]) -> Resolution:
    """Read PhysicalSizeX and PhysicalSizeY, with their units, of the image of an OME-XML text that has this size.

    Of several images of this size all must state the same; a single one need not state its size.
    """
    if "<!DOCTYPE" in xml:  # which may declare entities that expand without end; OME-XML has none
        return ABSENT
    try:
        every = ElementTree.fromstring(xml).findall(".//{*}Pixels")  # noqa: S314 without a DOCTYPE, nothing expands
    except ElementTree.ParseError:
        return ABSENT
    width, height = map(str, size_px)
    sizes = [(pixels.get("SizeX"), pixels.get("SizeY")) for pixels in every]
    chosen = every if sizes == [(None, None)] else [p for p, size in zip(every, sizes, strict=True)
                                                    if size == (width, height)]  # fmt: skip
    stating = [pixels for pixels in every if "PhysicalSizeX" in pixels.attrib]
    if not chosen and stating:
        return Resolution(None, f"OME PhysicalSizeX: none of its images has the slide's {width} × {height} pixels")
    found = {_of_pixels(pixels.attrib) for pixels in chosen if pixels in stating}
    if len(found) > 1:
        return Resolution(None, "OME PhysicalSizeX: images of the slide's size state different ones")
    return found.pop() if found else ABSENT


def imagej_unit(description: str) -> str:
    """Find the unit of length in the description that Fiji, ImageJ and QuPath write into a TIFF, or nothing."""
    if not description.startswith(("ImageJ=", "SCIFIO=")):
        return ""
    unit = re.search(r"^unit=(.*)$", description, re.MULTILINE)
    return unit.group(1).strip() if unit else ""


def _of_pixels(attributes: dict[str, str]) -> Resolution:
    x_text = attributes["PhysicalSizeX"]
    y_text = attributes.get("PhysicalSizeY", x_text)
    try:
        x, y = float(x_text), float(y_text)
    except ValueError:
        return Resolution(None, f"OME PhysicalSizeX: '{x_text:.20}' × '{y_text:.20}' is not a number")
    x_unit = attributes.get("PhysicalSizeXUnit", "µm")
    y_unit = attributes.get("PhysicalSizeYUnit", "µm") if "PhysicalSizeY" in attributes else x_unit
    x_um, y_um = _um_per(x_unit), _um_per(y_unit)
    if x_um is None or y_um is None:
        return Resolution(
            None, f"OME PhysicalSizeX: its unit '{x_unit if x_um is None else y_unit:.20}' is not a length"
        )
    return stated(x * x_um, y * y_um, "OME PhysicalSizeX")


def _um_per(unit: str) -> float | None:
    """How many µm a unit has; capitals matter in "mm" alone, where "Mm" is another unit, and not in words."""
    spelled = _spelled(unit)
    return UM_PER_UNIT.get(spelled, UM_PER_UNIT.get(spelled.lower()) if len(spelled) > 2 else None)


def _spelled(unit: str) -> str:
    r"""One spelling of a unit: `\u00B5m` as Fiji escapes it, the micro sign and the Greek letter are the same."""
    plain = re.sub(r"\\u([0-9a-fA-F]{4})", lambda code: chr(int(code.group(1), 16)), unit)
    return unicodedata.normalize("NFKC", plain).strip()


def first_stated(*candidates: Resolution) -> Resolution:
    """Return the first that holds a value; without one, the first that explains why."""
    ranked = [c for c in candidates if c.mpp is not None] or [c for c in candidates if c != ABSENT]
    return ranked[0] if ranked else ABSENT

"""Which tissue is meant, as somebody has drawn it: GeoJSON as QuPath exports it, or a picture of a mask.

In: a file. GeoJSON has polygons, with holes or without, in pixels of the full-resolution image; a picture (PNG, TIFF)
shows the whole slide at any size, and what is not black is tissue. Out: a mask of the whole slide.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from magnet_core.errors import MagnetError
from magnet_core.sealed import read_json

# h, w rows and columns of the mask

PICTURES = (".png", ".tif", ".tiff")
OUTLINES = (".geojson", ".json")
_SHAPE_TOLERANCE = 0.02  # width ÷ height of a picture may differ from the slide's by so much
_MOST_PX = 1 << 28
_REMEDY = "export it again: from QuPath as GeoJSON, or as a picture of the whole slide with tissue in white"


def read_tissue(path: Path, size_px: tuple[int, int], *, mask_px: tuple[int, int]) -> np.ndarray:
    """Return the mask (h, w) bool of a slide of `size_px`, where `mask_px` is (w, h); a picture keeps its own size.

    A file of another kind, without a polygon, or of another slide's shape is an error.
    """
    if path.suffix.lower() in PICTURES:
        return _read_picture(path, size_px)
    if path.suffix.lower() in OUTLINES:
        return _draw(path, list(_polygons(path, read_json(path, expected="GeoJSON", remedy=_REMEDY))), size_px, mask_px)
    raise MagnetError(
        f"--tissue {path}",
        expected=f"a name ending in {', '.join((*OUTLINES, *PICTURES))}",
        found=f"'{path.name}'",
        remedy=_REMEDY,
    )


def _read_picture(path: Path, size_px: tuple[int, int]) -> np.ndarray:
    from PIL import Image

    try:
        with Image.open(path, formats=["PNG", "TIFF"]) as image:
            if image.width * image.height > _MOST_PX:
                raise ValueError(f"{image.width} × {image.height} pixels")
            mask = np.asarray(image.convert("L")) > 0
    except (OSError, ValueError, SyntaxError) as error:
        raise MagnetError(path, expected="a picture of a mask", found=str(error), remedy=_REMEDY) from error
    height, width = mask.shape
    if abs(width / height / (size_px[0] / size_px[1]) - 1) > _SHAPE_TOLERANCE:
        raise MagnetError(
            path,
            expected=f"a picture of the whole slide, as {size_px[0]} wide to {size_px[1]} high",
            found=f"{width} × {height} pixels",
            remedy=_REMEDY,
        )
    return mask


def _polygons(path: Path, content: Any) -> Iterator[list[np.ndarray]]:
    """Yield each polygon as its rings of (n, 2) corners, (x, y), the outer one first."""
    match content:
        case {"type": "FeatureCollection", "features": list(features)} | list(features):
            for feature in features:
                yield from _polygons(path, feature)
        case {"type": "Feature", "geometry": dict(geometry)}:
            yield from _polygons(path, geometry)
        case {"type": "GeometryCollection", "geometries": list(geometries)}:
            for geometry in geometries:
                yield from _polygons(path, geometry)
        case {"type": "Polygon", "coordinates": list(rings)}:
            yield [_ring(path, ring) for ring in rings]
        case {"type": "MultiPolygon", "coordinates": list(polygons)}:
            for rings in polygons:
                yield [_ring(path, ring) for ring in rings]
        case {"type": str()}:  # a point or a line has no area
            return
        case _:
            found = f"{str(content)[:40]}"
            raise MagnetError(path, expected="GeoJSON of polygons", found=found, remedy=_REMEDY)


def _ring(path: Path, corners: Any) -> np.ndarray:
    try:
        ring = np.array([corner[:2] for corner in corners], np.float64).reshape(-1, 2)
    except (TypeError, ValueError) as error:
        raise MagnetError(path, expected="corners as pairs of numbers", found=str(error), remedy=_REMEDY) from error
    if len(ring) < 3 or not np.isfinite(ring).all():
        found = f"{len(ring)} corners" if len(ring) < 3 else "one that is no number"
        raise MagnetError(path, expected="polygons of at least three corners", found=found, remedy=_REMEDY)
    return ring


def _draw(
    path: Path, polygons: list[list[np.ndarray]], size_px: tuple[int, int], mask_px: tuple[int, int]
) -> np.ndarray:
    """Fill polygons, but for their holes, in a mask of the slide."""
    from PIL import Image, ImageDraw

    if not polygons:
        raise MagnetError(path, expected="GeoJSON of polygons", found="none in it", remedy=_REMEDY)
    scale = np.array(mask_px) / np.array(size_px)
    mask = np.zeros(mask_px[::-1], dtype=bool)
    for outer, *holes in polygons:
        canvas = Image.new("1", mask_px)
        draw = ImageDraw.Draw(canvas)
        for ring, is_filled in ((outer, 1), *((hole, 0) for hole in holes)):
            draw.polygon([tuple(corner) for corner in (ring * scale - 0.5).tolist()], fill=is_filled)
        mask |= np.asarray(canvas)
    return mask

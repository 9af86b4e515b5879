"""Regions of a slide in which a gene lies above a level, as GeoJSON for QuPath: annotations, one a region.

In: a prediction, the genes to draw, the level. Out: a FeatureCollection of polygons in pixels of the full-resolution
image. Bins that share a side are one region, and its holes are kept. Each is named after its gene and level, is of the
gene's class and colour, and has the number of its bins and their mean as measurements.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import shapely

from magnet_core.files import replacing
from magnet_core.levels import SPOT
from train.data.lattice import lattice_of
from train.predict.drawing import Drawing
from train.predict.prediction import SlidePrediction

# N rows, M of them above the level, R regions

# Told apart by everyone, colour-blind or not (Okabe and Ito), and none of them like haematoxylin or eosin.
COLOURS = ((0, 158, 115), (230, 159, 0), (86, 180, 233), (240, 228, 66), (0, 114, 178), (213, 94, 0), (204, 121, 167))
_DECIMALS = 2  # of a pixel


def write_geojson(prediction: SlidePrediction, path: Path, drawing: Drawing) -> None:
    """Write the file, whole or not at all, one region a line."""
    with replacing(path) as partial, partial.open("w", encoding="utf-8") as file:
        file.write('{"type": "FeatureCollection", "features": [')
        for number, feature in enumerate(features(prediction, drawing)):
            file.write((",\n" if number else "\n") + json.dumps(feature, ensure_ascii=False))
        file.write("\n]}\n")


def features(prediction: SlidePrediction, drawing: Drawing) -> Iterator[dict[str, Any]]:
    """Yield the regions of each gene as QuPath has annotations, the largest first."""
    shapes = RowShapes(prediction)
    for number, column in enumerate(drawing.columns(prediction.genes)):
        gene, values = str(prediction.genes.names[column]), prediction.values[:, column]
        level = drawing.above.of(values)
        polygons, rows_of = shapes.regions(np.flatnonzero(values > level))
        for region in np.argsort([-len(rows) for rows in rows_of], kind="stable"):
            rows = rows_of[region]
            yield {
                "type": "Feature",
                "geometry": json.loads(shapely.to_geojson(polygons[region])),
                "properties": {
                    "objectType": "annotation",
                    "name": f"{gene} > {level:.3g}",
                    "classification": {"name": gene, "color": COLOURS[number % len(COLOURS)]},
                    "isLocked": True,
                    "measurements": {"Rows": len(rows), f"Mean {gene}": float(values[rows].mean())},
                },
            }


class RowShapes:
    """What the rows of a slide look like on its image: squares of a lattice, or single squares or circles."""

    def __init__(self, prediction: SlidePrediction) -> None:
        self._prediction = prediction
        fine = prediction.slide.fine
        self._lattice = lattice_of(fine.barcodes().tolist(), fine.centres_um)

    def regions(self, rows: np.ndarray) -> tuple[np.ndarray, list[np.ndarray]]:
        """Merge rows (M,): return polygons (R,) in pixels of the image, and the rows of each."""
        if not len(rows):
            return np.empty(0, object), []
        if self._lattice is not None:
            polygons, region_of = merged_cells(self._lattice.cells[rows])
            polygons = shapely.transform(polygons, self._to_px)
        else:
            polygons = shapely.transform(shapely.get_parts(shapely.union_all(self._single(rows))), _rounded)
            points = shapely.points(self._prediction.centres_px[rows])
            inside, region_of = shapely.STRtree(polygons).query(points, predicate="within")
            region_of = region_of[np.argsort(inside)]
        order = np.argsort(region_of, kind="stable")
        ends = np.cumsum(np.bincount(region_of, minlength=len(polygons)))[:-1]
        return polygons, np.split(rows[order], ends)

    def _to_px(self, corners: np.ndarray) -> np.ndarray:
        """Take corners of cells (n, 2), column and row, to pixels of the image."""
        assert self._lattice is not None
        turn, shift = self._lattice.to_um[:, :2], self._lattice.to_um[:, 2]
        return _rounded(((corners - 0.5) @ turn.T + shift) / self._prediction.mpp)

    def _single(self, rows: np.ndarray) -> np.ndarray:
        """Return squares, or of spots circles, (M,)."""
        half = self._prediction.side_um / self._prediction.mpp / 2
        cap = "round" if self._prediction.slide.fine.name == SPOT else "square"
        single: np.ndarray = shapely.buffer(shapely.points(self._prediction.centres_px[rows]), half, cap_style=cap)
        return single


def _rounded(corners: np.ndarray) -> np.ndarray:
    """Round corners (n, 2): what two polygons have in common stays so."""
    return np.round(corners, _DECIMALS)


def merged_cells(cells: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Merge cells (M, 2), row and column, into polygons (R,) in (column, row); say which one each cell is in, (M,).

    Corners are whole numbers, so that merging is exact. Runs of cells in a row are merged beforehand, as they are few.
    """
    order = np.lexsort(cells.T[::-1])
    row, column = cells[order].T
    starts = np.flatnonzero((np.diff(row, prepend=-2) != 0) | (np.diff(column, prepend=-2) != 1))
    ends = np.append(starts[1:], len(order)) - 1
    runs = shapely.box(column[starts], row[starts], column[ends] + 1, row[starts] + 1)
    polygons = shapely.simplify(shapely.get_parts(shapely.union_all(runs)), 0)  # without corners within a side
    middles = shapely.points((column[starts] + column[ends] + 1) / 2, row[starts] + 0.5)
    found, region_of_run = shapely.STRtree(polygons).query(middles, predicate="within")
    region_of = np.empty(len(order), np.int64)
    region_of[order] = np.repeat(region_of_run[np.argsort(found)], ends - starts + 1)
    return polygons, region_of

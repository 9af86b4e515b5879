import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import shapely

from tests.train.predict.setting import MPP, block, prediction_at
from train.predict.drawing import Drawing, Level
from train.predict.geojson import write_geojson
from train.predict.prediction import SlidePrediction

DRAWN = Drawing(("GENE0",), Level(0.5))
# One region around a hole, one that touches it at a corner only, and one far off.
PICTURE = ["1110000", "1010001", "1110001", "0001100"]


def drawn(picture: list[str]) -> tuple[np.ndarray, np.ndarray]:
    """Cells of a picture, and values (N, 2): 0 or 1, and their opposite."""
    values = np.array([[int(mark) for mark in line] for line in picture], float).reshape(-1, 1)
    return block(len(picture), len(picture[0])), np.hstack([values, 1 - values])


def write(prediction: SlidePrediction, path: Path, drawing: Drawing = DRAWN) -> tuple[list[dict[str, Any]], np.ndarray]:
    write_geojson(prediction, path, drawing)
    content = json.loads(path.read_text(encoding="utf-8"))
    assert content["type"] == "FeatureCollection"
    shapes = [shapely.from_geojson(json.dumps(feature["geometry"])) for feature in content["features"]]
    assert all(shape.geom_type == "Polygon" and shape.is_valid for shape in shapes)
    return content["features"], np.array(shapes)


@pytest.mark.parametrize("turn_deg", [0, 17])
def test_regions_are_the_bins_that_share_a_side_with_their_holes(tmp_path: Path, turn_deg: float) -> None:
    cells, values = drawn(PICTURE)
    prediction = prediction_at(cells, values, turn_deg=turn_deg, origin_um=(200, 100))
    found, shapes = write(prediction, tmp_path / "S1.geojson")
    bin_px = (8 / MPP) ** 2
    np.testing.assert_allclose(shapely.area(shapes), np.array([8, 2, 2]) * bin_px, rtol=1e-3)
    assert [feature["properties"]["measurements"]["Rows"] for feature in found] == [8, 2, 2]
    assert [len(shape.interiors) for shape in shapes] == [1, 0, 0]
    assert shapely.area(shapely.Polygon(shapes[0].interiors[0])) == pytest.approx(bin_px, rel=1e-3)
    assert len(shapes[0].exterior.coords) == 5  # no corners within a side
    centres = shapely.points(prediction.centres_px)
    inside = shapely.contains(shapely.union_all(shapes), centres)
    np.testing.assert_array_equal(inside, values[:, 0] == 1)


def test_a_region_is_an_annotation_as_qupath_has_it(tmp_path: Path) -> None:
    cells, values = drawn(PICTURE)
    found, _ = write(prediction_at(cells, values), tmp_path / "S1.geojson", Drawing(("GENE1", "GENE0"), Level(0.5)))
    of_gene = {feature["properties"]["classification"]["name"]: feature["properties"] for feature in found}
    assert list(of_gene) == ["GENE1", "GENE0"]
    properties = of_gene["GENE0"]
    assert properties["objectType"] == "annotation"
    assert properties["name"] == "GENE0 > 0.5"
    assert properties["measurements"]["Mean GENE0"] == 1
    colours = [each["classification"]["color"] for each in of_gene.values()]
    assert colours[0] != colours[1]
    assert all(len(colour) == 3 and all(0 <= part <= 255 for part in colour) for colour in colours)


def test_a_share_of_rows_lies_below_its_level(tmp_path: Path) -> None:
    values = np.arange(100.0).reshape(-1, 1)
    found, _ = write(prediction_at(block(10, 10), values), tmp_path / "a.geojson", Drawing(("GENE0",)))
    assert [feature["properties"]["measurements"] for feature in found] == [{"Rows": 10, "Mean GENE0": 94.5}]


def test_where_nothing_lies_above_there_is_no_region(tmp_path: Path) -> None:
    found, _ = write(prediction_at(block(2, 2), np.ones((4, 1))), tmp_path / "S1.geojson", Drawing(("GENE0",)))
    assert found == []


def test_spots_without_a_lattice_are_circles(tmp_path: Path) -> None:
    prediction = prediction_at(2 * block(2, 2), np.array([[1.0], [0], [0], [1]]), um=55, named=False)
    found, shapes = write(prediction, tmp_path / "S1.geojson")
    assert [feature["properties"]["measurements"]["Rows"] for feature in found] == [1, 1]
    np.testing.assert_allclose(shapely.area(shapes), np.pi * (28 / MPP) ** 2, rtol=0.01)


def test_bins_without_a_lattice_are_squares_that_merge(tmp_path: Path) -> None:
    cells, values = drawn(PICTURE)
    found, shapes = write(prediction_at(cells, values, named=False), tmp_path / "S1.geojson")
    assert [feature["properties"]["measurements"]["Rows"] for feature in found] == [8, 2, 2]
    np.testing.assert_allclose(shapely.area(shapes), np.array([8, 2, 2]) * (8 / MPP) ** 2, rtol=1e-3)

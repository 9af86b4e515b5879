import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from PIL import Image

from extract.hne_only import bins_in_tissue
from extract.readers.binning import bin_cells
from extract.tissue_file import read_tissue
from magnet_core.errors import MagnetError
from magnet_core.slides import open_slide

SIZE = (400, 200)  # x, y


def square(left: float, top: float, right: float, bottom: float) -> list[list[float]]:
    return [[left, top], [right, top], [right, bottom], [left, bottom], [left, top]]


def outlines(folder: Path, *geometries: dict[str, Any]) -> Path:
    features = [{"type": "Feature", "properties": {}, "geometry": geometry} for geometry in geometries]
    path = folder / "tissue.geojson"
    path.write_text(json.dumps({"type": "FeatureCollection", "features": features}))
    return path


def test_outlines_are_filled_but_for_their_holes(tmp_path: Path) -> None:
    path = outlines(
        tmp_path,
        {"type": "Polygon", "coordinates": [square(0, 0, 100, 100), square(40, 40, 60, 60)]},
        {"type": "MultiPolygon", "coordinates": [[square(200, 100, 300, 200)], [square(50, 50, 52, 52)]]},
        {"type": "Point", "coordinates": [350, 20]},
    )
    mask = read_tissue(path, SIZE, mask_px=SIZE)
    assert mask.shape == (200, 400)
    expected = np.zeros_like(mask)
    expected[0:100, 0:100] = True
    expected[40:60, 40:60] = False
    expected[50:52, 50:52] = True
    expected[100:200, 200:300] = True
    assert (mask != expected).sum() < 0.02 * expected.sum()  # corners lie on the lines between pixels
    halved = read_tissue(path, SIZE, mask_px=(200, 100))
    assert (halved != expected[::2, ::2]).sum() < 0.04 * expected.sum()


def test_one_feature_alone_and_a_bare_list_of_them_are_read_too(tmp_path: Path) -> None:
    feature = {"type": "Feature", "geometry": {"type": "Polygon", "coordinates": [square(0, 0, 100, 100)]}}
    for content in (feature, [feature], feature["geometry"]):
        path = tmp_path / "one.json"
        path.write_text(json.dumps(content))
        assert read_tissue(path, SIZE, mask_px=SIZE)[50, 50]


def test_a_picture_of_any_size_shows_where_tissue_is(tmp_path: Path) -> None:
    picture = np.zeros((20, 40), np.uint8)
    picture[5:10, 3:9] = 255
    Image.fromarray(picture).save(tmp_path / "mask.png")
    np.testing.assert_array_equal(read_tissue(tmp_path / "mask.png", SIZE, mask_px=SIZE), picture > 0)


def test_bins_are_laid_where_the_file_says_whatever_the_colours_are(tmp_path: Path) -> None:
    image = tmp_path / "glass.tif"
    tifffile.imwrite(image, np.full((400, 800, 3), 245, np.uint8))  # 100 × 200 µm
    path = outlines(tmp_path, {"type": "Polygon", "coordinates": [square(128, 64, 320, 128)]})
    with open_slide(image) as slide:
        cells = bin_cells(bins_in_tissue(slide, 0.25, slide_id="S", tissue=path).bins[8].barcodes)
        with pytest.raises(MagnetError, match="expected H&E-stained tissue"):
            bins_in_tissue(slide, 0.25, slide_id="S")
        away = outlines(tmp_path, {"type": "Polygon", "coordinates": [square(900, 900, 990, 990)]})
        with pytest.raises(MagnetError, match=r"expected tissue within the slide, found none on tissue.geojson"):
            bins_in_tissue(slide, 0.25, slide_id="S", tissue=away)
    assert {tuple(cell) for cell in cells.tolist()} == {(x, y) for x in range(4, 10) for y in (2, 3)}


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("tissue.txt", b"", r"--tissue .*tissue.txt: expected a name ending in .geojson"),
        ("tissue.json", b"{", "expected GeoJSON, found "),
        ("tissue.json", b'{"type": "FeatureCollection"}', "expected GeoJSON of polygons, found none in it"),
        ("tissue.json", b'{"features": []}', "expected GeoJSON of polygons, found {'features'"),
        ("tissue.json", b'{"type": "Polygon", "coordinates": [[[0, 0], [1, 1]]]}', "at least three corners, found 2"),
        (
            "tissue.json",
            b'{"type": "Polygon", "coordinates": [["x", "y", "z"]]}',
            "corners as pairs of numbers",
        ),
        ("tissue.json", b'{"type": "Polygon", "coordinates": [7]}', "corners as pairs of numbers"),
        ("tissue.png", b"no picture", "expected a picture of a mask"),
    ],
)
def test_a_file_that_is_none_is_one_line(tmp_path: Path, name: str, content: bytes, says: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(MagnetError, match=says) as caught:
        read_tissue(tmp_path / name, SIZE, mask_px=SIZE)
    assert "\n" not in str(caught.value)


def test_a_picture_of_another_slide_is_refused(tmp_path: Path) -> None:
    Image.fromarray(np.ones((40, 40), np.uint8)).save(tmp_path / "mask.png")
    with pytest.raises(MagnetError, match="the whole slide, as 400 wide to 200 high, found 40 × 40"):
        read_tissue(tmp_path / "mask.png", SIZE, mask_px=SIZE)

import re
from pathlib import Path

import pytest

from train.predict.images import image_id


@pytest.mark.parametrize(
    ("file", "slide_id"),
    [
        ("S1.ome.tif", "S1"),
        ("Präparat Größe 1.tif", "Praeparat-Groesse-1"),
        ("Pra\u0308parat é.svs", "Praeparat-e"),
        ("切片.tif", "slide-[0-9a-f]{6}"),
    ],
)
def test_a_slide_is_called_after_its_file_in_letters_that_every_folder_takes(file: str, slide_id: str) -> None:
    assert re.fullmatch(slide_id, image_id(Path(file)))
    assert image_id(Path("组织.tif")) != image_id(Path(file))

"""The small picture of a slide: what is written is read, and no other image's, damaged or made-up one is taken."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cache.listing import store_faults
from cache.picture import MOST_PX, StoredPicture, read_picture, write_picture
from cache.repair import mend, survey
from cache.store import Store
from cache.writer import ArrayWriter
from magnet_core.checksums import append_checksum
from magnet_core.errors import MagnetError

IMAGE = "image of S1"


def tissue(h: int = 40, w: int = 60) -> np.ndarray:
    """A picture (h, w, 3) whose colour rises to the right."""
    row = np.linspace(90, 240, w).astype(np.uint8)
    return np.broadcast_to(row[None, :, None], (h, w, 3)).copy()


@pytest.fixture
def store(tmp_path: Path) -> Store:
    opened = Store.create(tmp_path / "store")
    header = {"digest": "d", "mpp": 0.5, "settings": {"slide_id": "S1", "image": IMAGE}}
    with ArrayWriter(opened.geometry_path("S1"), header) as writer:
        writer.put("spot/centres_um", np.zeros((4, 2)))
        writer.commit()
    opened.register([{"slide_id": "S1"}])
    write_picture(opened.picture_path("S1"), StoredPicture(tissue(), 0.05, IMAGE))
    return opened


def test_a_picture_is_read_with_the_um_that_its_pixels_are_wide(store: Store) -> None:
    picture = store.picture("S1")
    assert picture is not None
    assert picture.um_per_px == 10.0  # 0.5 µm/px of the image, 20 of whose pixels one of the picture is wide
    np.testing.assert_allclose(picture.pixels, tissue(), atol=4)  # JPEG loses a little


def test_a_store_of_before_has_none(store: Store) -> None:
    store.picture_path("S1").unlink()
    assert store.picture("S1") is None
    assert store_faults(store) == (1, [])


def test_any_viewer_opens_the_file(store: Store) -> None:
    with Image.open(store.picture_path("S1")) as image:
        assert image.size == (60, 40)


def test_every_flipped_bit_is_told(store: Store) -> None:
    path = store.picture_path("S1")
    whole = path.read_bytes()
    for at in [*range(0, len(whole), 41), *range(len(whole) - 60, len(whole))]:
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 4]) + whole[at + 1 :])
        with pytest.raises(MagnetError, match=r"picture\.jpg: expected a slide's picture as it was written"):
            store.picture("S1")
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(MagnetError, match="does not match|do not match"):
        store.picture("S1")


def test_a_picture_of_another_image_is_refused(store: Store) -> None:
    write_picture(store.picture_path("S1"), StoredPicture(tissue(), 0.05, "image of S2"))
    with pytest.raises(MagnetError, match="found one of another image"):
        store.picture("S1")
    files, faults = store_faults(store)
    assert files == 2
    assert [fault.split(":")[0] for fault in faults] == [str(store.picture_path("S1"))]


def test_repair_removes_a_damaged_picture_and_nothing_else(store: Store) -> None:
    path = store.picture_path("S1")
    path.write_bytes(path.read_bytes()[:-1])
    [finding] = survey(store)
    assert finding.files == (path,)
    assert mend(store, finding)
    assert survey(store) == []
    assert store.picture("S1") is None


def test_a_folder_of_no_slide_is_removed_with_its_picture(store: Store) -> None:
    store.register([{"slide_id": "S2"}])
    store.unregister(["S1"])
    finding = next(each for each in survey(store) if each.where.name == "S1")
    assert mend(store, finding)
    assert not (store.root / "S1").exists()


def test_a_made_up_file_is_one_line(tmp_path: Path) -> None:
    def with_comment(comment: bytes, size: tuple[int, int] = (8, 8)) -> Path:
        path = tmp_path / "picture.jpg"
        Image.new("RGB", size).save(path, "JPEG", comment=comment)
        append_checksum(path)
        return path

    stated = json.dumps({"scale": 1, "image": "i"}).encode()
    assert read_picture(with_comment(stated)).scale == 1
    for comment in (b"", b"[" * 5000, b"[1]", b'{"scale": "x", "image": "i"}', b'{"scale": 1}'):
        with pytest.raises(MagnetError, match="delete it and run 'extract run' again"):
            read_picture(with_comment(comment))
    with pytest.raises(MagnetError, match="8192 × 8192 pixels"):
        read_picture(with_comment(stated, (8192, 8192)))
    assert MOST_PX < 8192**2

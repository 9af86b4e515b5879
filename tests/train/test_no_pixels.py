"""A store without pixels: what reads features works, what trains an encoder is refused at once."""

import json
from pathlib import Path

import numpy as np
import pytest

from cache.reader import ArrayFile
from cache.store import Store
from cache.writer import ArrayWriter
from magnet_core.errors import MagnetError
from tests.train.setting import config, parts
from train.data.fold_choice import check_features, choose_fold
from train.pipeline import fit


@pytest.fixture
def bare_store(small_store: Store, tmp_path: Path) -> Store:
    """The small store as `extract run --no-pixels` leaves it."""
    root = tmp_path / "bare"
    for path in small_store.root.glob("*/*.lmdb"):
        copy = root / path.relative_to(small_store.root)
        with ArrayFile(path) as file:
            is_geometry = path.name == "geometry.lmdb"
            with ArrayWriter(copy, file.header | ({"pixels": False} if is_geometry else {})) as writer:
                for name in file.names():
                    if not name.endswith("/pixels"):
                        writer.put(name, file.read(name))
                writer.commit()
    (root / "store.json").write_bytes((small_store.root / "store.json").read_bytes())
    return Store(root)


def test_training_an_encoder_is_refused_before_anything_is_read(bare_store: Store, tmp_path: Path) -> None:
    settings = config(bare_store, tmp_path)
    with pytest.raises(MagnetError, match="extract run' again without --no-pixels") as refused:
        check_features(settings, [choose_fold(settings)])
    assert "--bins frozen" in str(refused.value)
    check_features(config(bare_store, tmp_path, "encoder.mode=frozen"), [choose_fold(settings)])
    slide, _ = parts(bare_store, config(bare_store, tmp_path, "encoder.mode=frozen"))
    with pytest.raises(MagnetError, match="found a slide extracted with --no-pixels"):
        slide.fine.pixels(np.arange(2))


def test_a_frozen_fit_is_that_of_a_store_with_pixels_without_the_ridge_on_colours(
    small_store: Store, bare_store: Store, tmp_path: Path
) -> None:
    bare = fit(config(bare_store, tmp_path / "bare_runs", "encoder.mode=frozen"))
    whole = fit(config(small_store, tmp_path / "whole_runs", "encoder.mode=frozen"))
    assert whole.systems.keys() - bare.systems.keys() == {"colour_ridge"}
    assert bare.systems == {name: scores for name, scores in whole.systems.items() if name != "colour_ridge"}
    folders = [{cell.cell.system: cell.folder.name for cell in result.cells} for result in (bare, whole)]
    assert folders[0].items() < folders[1].items()
    assert json.loads((bare.folder / "study.json").read_text())

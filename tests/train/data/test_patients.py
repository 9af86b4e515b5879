"""A patient that was corrected in the sheet is the one that every reader sees; names change for those slides alone."""

import shutil
from pathlib import Path

from anndata import read_h5ad

from cache.export_h5ad import export_h5ad
from cache.store import Store
from magnet_core.levels import find_target
from tests.train.conftest import BACKBONE
from train.data.folds import Fold
from train.data.slide import open_slide_data
from train.settings.fit import DataConfig, FitConfig
from train.studies.cell import Cell
from train.systems.table import MAGNET, RivalsConfig

FOLD = Fold(0, ("S1", "S2"), ("S3",))


def corrected(small_store: Store, folder: Path) -> Store:
    """The store with the patient of S2 corrected, as another run of the sheet leaves it."""
    store = Store(shutil.copytree(small_store.root, folder / "store"))
    store.register([row | {"patient": "corrected"} for row in store.samples() if row["slide_id"] == "S2"])
    return store


def test_every_reader_sees_the_corrected_patient(small_store: Store, tmp_path: Path) -> None:
    store = corrected(small_store, tmp_path)
    data = DataConfig(store=store.root, backbone=BACKBONE)
    assert open_slide_data(store, "S2", find_target(8), data).patient == "corrected"
    assert open_slide_data(store, "S1", find_target(8), data).patient == small_store.patient("S1") != "corrected"
    export_h5ad(store, tmp_path / "S2.h5ad", slide_id="S2", level="bin_008um")
    assert read_h5ad(tmp_path / "S2.h5ad").uns["magnet_hd"]["patient"] == "corrected"


def test_a_cell_gets_another_name_where_a_patient_was_corrected_alone(small_store: Store, tmp_path: Path) -> None:
    config = FitConfig(data=DataConfig(store=small_store.root, backbone=BACKBONE))
    cell = Cell(MAGNET, config, FOLD, RivalsConfig())
    before = cell.folder(tmp_path, small_store)
    same = Store(shutil.copytree(small_store.root, tmp_path / "same"))
    same.register(same.samples())
    assert cell.folder(tmp_path, same) == before
    assert cell.folder(tmp_path, corrected(small_store, tmp_path)) != before


def test_reading_for_a_fit_writes_nothing_to_the_store(small_store: Store) -> None:
    root = small_store.root
    before = {path: path.stat().st_mtime_ns for path in (root, *root.rglob("*"))}
    slide = open_slide_data(Store(root), "S1", find_target(8), DataConfig(store=root, backbone=BACKBONE))
    assert len(slide.fine) > 0
    assert {path: path.stat().st_mtime_ns for path in (root, *root.rglob("*"))} == before

"""No result whose bytes have changed is used: cells, trained runs and tables name the file, and how it is made anew."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from cache.store import Store
from magnet_core.errors import MagnetError
from tests.train.setting import config
from train.learning.trained_run import load_run
from train.pipeline import TableResult, fit
from train.places import CELL, RUN, TABLE, WEIGHTS
from train.predict.request import PredictConfig, accept
from train.report.page import write_report
from train.settings.fit import FitConfig
from train.studies.cell import CellResult, read

PLACES = 24  # bytes that are changed of each file
OF_A_CELL = (CELL, "genes.parquet", "predictions/*.npy", "blocks/*.npz")


def small(store: Store, runs: Path) -> FitConfig:
    """Folds lie beside the store, so that a copy of results is of the same settings."""
    folds = f"split.file={store.root.parent / 'damaged-folds.json'}"
    return config(store, runs, "encoder.mode=frozen", "optim.epochs=1", "baselines=false", "name=one", folds)


@pytest.fixture(scope="module")
def fitted(small_store: Store, tmp_path_factory: pytest.TempPathFactory) -> TableResult:
    return fit(small(small_store, tmp_path_factory.mktemp("damaged") / "runs"))


@pytest.fixture
def runs(fitted: TableResult, tmp_path: Path) -> Path:
    """A copy, which a test may damage."""
    return Path(shutil.copytree(fitted.folder.parent, tmp_path / "runs"))


def copied(result: CellResult, runs: Path) -> Path:
    return runs / "cells" / result.folder.name


def damaged(path: Path) -> Iterator[None]:
    """Change one byte after the other, from the first to the last, then cut the file, then remove it."""
    content = path.read_bytes()
    for place in np.unique(np.linspace(0, len(content) - 1, PLACES).astype(int)):
        path.write_bytes(content[:place] + bytes([content[place] ^ 4]) + content[place + 1 :])
        yield
    path.write_bytes(content[: len(content) // 2])
    yield
    path.unlink()
    yield
    path.write_bytes(content)


@pytest.mark.parametrize("pattern", OF_A_CELL)
def test_a_cell_with_a_changed_byte_is_not_read(pattern: str, fitted: TableResult, runs: Path) -> None:
    cell = fitted.cell()
    folder = copied(cell, runs)
    (path,) = folder.glob(pattern)
    for _ in damaged(path):
        with pytest.raises(MagnetError, match=rf"{path.name}: .*; delete the folder .*{folder.name}, and give"):
            read(cell.cell, folder)
    assert read(cell.cell, folder).genes.equals(cell.genes)


def test_folders_of_cells_that_were_exchanged_are_told_of(fitted: TableResult, runs: Path) -> None:
    cell = fitted.cell()
    other = copied(cell, runs)
    other = other.rename(other.with_name(f"{other.name[:-1]}0"))
    with pytest.raises(MagnetError, match=rf"found '{cell.folder.name}'; give both folders their names"):
        read(cell.cell, other)


@pytest.mark.parametrize("name", [RUN, WEIGHTS])
def test_a_trained_run_with_a_changed_byte_is_not_used(name: str, fitted: TableResult, runs: Path) -> None:
    folder = copied(fitted.cell(), runs)
    for _ in damaged(folder / name):
        with pytest.raises(MagnetError, match=rf"{name}"):
            load_run(folder)
    assert len(load_run(folder).panel) == len(fitted.cell().panel)


def test_a_prediction_is_not_asked_of_a_damaged_run(fitted: TableResult, runs: Path) -> None:
    folder = copied(fitted.cell(), runs)
    path = folder / RUN
    path.write_text(path.read_text().replace('"fold": 0', '"fold": 1'))
    with pytest.raises(MagnetError, match=r"run\.json: .* found content that does not match its checksum; delete the"):
        accept(PredictConfig((folder,), ("S1",)))


@pytest.mark.parametrize("name", [TABLE, "table.csv", "genes.parquet", "slides.parquet"])
def test_no_page_is_made_of_a_table_with_a_changed_byte(name: str, runs: Path, tmp_path: Path) -> None:
    path = runs / "one" / name
    content = path.read_bytes()
    for place in (len(content) // 3, len(content) // 2, len(content) - 9):
        path.write_bytes(content[:place] + bytes([content[place] ^ 4]) + content[place + 1 :])
        with pytest.raises(MagnetError, match=rf"{name}: .*delete .*study\.json, and give the command that made it"):
            write_report([runs / "one"], tmp_path / "page.html")
    assert not (tmp_path / "page.html").exists()


def test_files_of_two_cells_that_changed_places_are_noticed(fitted: TableResult, runs: Path) -> None:
    cell, ceiling = fitted.cell(), fitted.cell("noise_ceiling")
    (copied(ceiling, runs) / "genes.parquet").replace(copied(cell, runs) / "genes.parquet")
    with pytest.raises(MagnetError, match=r"genes\.parquet: expected the bytes that were written, found others"):
        read(cell.cell, copied(cell, runs))


def test_a_damaged_cell_ends_a_fit_and_is_computed_again_when_it_is_deleted(
    fitted: TableResult, small_store: Store, runs: Path
) -> None:
    folder = copied(fitted.cell(), runs)
    path = next(folder.glob("predictions/*.npy"))
    content = path.read_bytes()
    path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(MagnetError, match="found others: it was damaged or changed; delete the folder"):
        fit(small(small_store, runs))
    shutil.rmtree(folder)
    again = fit(small(small_store, runs))
    assert path.read_bytes() == content
    assert again.cell().genes.equals(fitted.cell().genes)


def test_a_damaged_table_is_made_again_of_its_cells(small_store: Store, runs: Path) -> None:
    record = runs / "one" / TABLE
    text = record.read_text()
    record.write_text(text[:-9])
    with pytest.raises(MagnetError, match=r"study\.json: .*; delete .*study\.json, and give"):
        fit(small(small_store, runs))
    record.unlink()
    fit(small(small_store, runs))
    assert record.exists()

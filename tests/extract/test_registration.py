"""What a run tells the store of its slides: renamed, removed and twice-named ones never come into a fold unseen."""

import csv
import logging
import shutil
from collections.abc import Mapping
from pathlib import Path

import pytest

from cache.store import Store
from extract.config import EmbeddingConfig, GeometryConfig, RunConfig
from extract.pipeline import run
from extract.plan import plan_run
from magnet_core.errors import MagnetError
from train.data.fold_choice import all_folds
from train.settings.fit import DataConfig, FitConfig, SplitConfig

BACKBONE = "timm:test_convnext"


def config(sheet: Path, store: Path, *slides: str) -> RunConfig:
    return RunConfig(
        samples=sheet,
        store=store,
        slides=slides,
        geometry=GeometryConfig(targets=(55,), spots=12, window=4),
        embedding=EmbeddingConfig(backbone=BACKBONE, weights="random", token_grid=1, own=0),
    )


@pytest.fixture(scope="module")
def extracted(small_samples: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A sheet of two slides with paths that hold anywhere, and their store."""
    folder = tmp_path_factory.mktemp("registration")
    with small_samples.open() as file:
        rows = list(csv.DictReader(file))
    for row in rows:
        row |= {name: str(small_samples.parent / row[name]) for name in ("image", "counts")}
    sheet = write_sheet(folder / "samples.csv", rows)
    assert run(config(sheet, folder / "store")).failed == {}
    return sheet, folder / "store"


@pytest.fixture
def own(extracted: tuple[Path, Path], tmp_path: Path) -> tuple[Path, Store]:
    """A copy of the store, and its sheet at its place."""
    sheet, root = extracted
    store = Store(shutil.copytree(root, tmp_path / "store"))
    moved = Path(shutil.copy(sheet, tmp_path / "samples.csv"))
    store.register([row | {"sheet": str(moved.resolve())} for row in store.samples()])
    return moved, store


def write_sheet(path: Path, rows: list[dict[str, str]]) -> Path:
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return path


def edit(sheet: Path, changes: Mapping[str, dict[str, str] | None]) -> None:
    """Change cells of slides, by their ids; None removes the line."""
    with sheet.open() as file:
        rows = list(csv.DictReader(file))
    kept = [(row, changes.get(row["slide_id"], {})) for row in rows]
    write_sheet(sheet, [row | change for row, change in kept if change is not None])


def folds(store: Store, tmp_path: Path, **split: str) -> list[tuple[str, ...]]:
    shutil.rmtree(tmp_path / "runs", ignore_errors=True)
    of_split = SplitConfig.build({"file": tmp_path / "runs/folds.json", **split}, where="test")
    fit = FitConfig(data=DataConfig(store=store.root, target=55, backbone=BACKBONE), split=of_split)
    return sorted(fold.test for fold in all_folds(fit))


def test_a_renamed_slide_is_left_out_under_its_old_name(
    own: tuple[Path, Store], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    sheet, store = own
    assert folds(store, tmp_path) == [("S1",), ("S2",)]
    edit(sheet, {"S1": {"slide_id": "Patient7", "patient": ""}})
    with caplog.at_level(logging.WARNING):
        assert run(config(sheet, store.root)).written == ["Patient7"]
    (line,) = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert line.startswith(f"S1: in {store.root}, but no longer in {sheet}; left out of folds.")
    assert folds(store, tmp_path) == [("Patient7",), ("S2",)]
    assert "not in any fold, as their sample sheet no longer names them: S1" in caplog.messages
    shutil.rmtree(store.root / "S1")  # and nothing misses it
    assert run(config(sheet, store.root)).unchanged == ["Patient7", "S2"]
    assert folds(store, tmp_path) == [("Patient7",), ("S2",)]


def test_a_part_of_a_sheet_and_other_sheets_make_no_slide_stale(own: tuple[Path, Store], tmp_path: Path) -> None:
    sheet, store = own
    assert run(config(sheet, store.root, "S2")).unchanged == ["S2"]
    second = Path(shutil.copy(sheet, tmp_path / "second.csv"))
    edit(second, {"S1": None})
    assert run(config(second, store.root)).unchanged == ["S2"]
    assert store.stale_ids() == []
    edit(sheet, {"S2": None})
    run(config(sheet, store.root, "S1"))
    assert store.stale_ids() == []  # the second sheet has it


def test_a_slide_that_comes_back_is_in_folds_again(own: tuple[Path, Store], tmp_path: Path) -> None:
    sheet, store = own
    before = sheet.read_text()
    edit(sheet, {"S1": None})
    run(config(sheet, store.root))
    assert store.stale_ids() == ["S1"]
    sheet.write_text(before)
    assert run(config(sheet, store.root)).unchanged == ["S1", "S2"]
    assert folds(store, tmp_path) == [("S1",), ("S2",)]


def test_one_image_under_two_names_is_refused_before_work_is_done(
    own: tuple[Path, Store], monkeypatch: pytest.MonkeyPatch
) -> None:
    sheet, store = own
    with sheet.open() as file:
        rows = list(csv.DictReader(file))
    write_sheet(sheet, [*rows, rows[0] | {"slide_id": "again", "patient": "other"}])
    monkeypatch.setattr("extract.pipeline.read_counts", lambda _: pytest.fail("counts were read"))
    for summary in (run(config(sheet, store.root)), plan_run(config(sheet, store.root))):
        assert summary.failed.keys() == {"again"}
        assert "an image that no other slide of the store has, found that of 'S1', from" in summary.failed["again"]
        assert "keep one name; to give 'S1' up, delete" in summary.failed["again"]
    assert not (store.root / "again").exists()


def test_one_image_under_two_names_in_a_store_of_before_is_in_no_two_folds(
    own: tuple[Path, Store], tmp_path: Path
) -> None:
    _, store = own
    rows = [{name: value for name, value in row.items() if name not in ("sheet", "fingerprint")}
            for row in store.samples()]  # fmt: skip
    shutil.copytree(store.root / "S1", store.root / "Patient7")
    store.unregister(["S1", "S2"])
    store.register([*rows, rows[0] | {"slide_id": "Patient7", "patient": "Patient7", "fingerprint": image_of(store)}])
    with pytest.raises(MagnetError, match=r"slides 'Patient7' and 'S1': expected an image of its own for each"):
        folds(store, tmp_path)
    with pytest.raises(MagnetError, match="the same image under both names"):
        folds(store, tmp_path, by="slide")
    store.register([rows[0] | {"slide_id": "Patient7", "fingerprint": image_of(store)}])  # of the same patient
    assert folds(store, tmp_path) == [("Patient7", "S1"), ("S2",)]


def image_of(store: Store) -> str:
    with store.laid_geometry("S1") as geometry:
        image: str = geometry.header["settings"]["image"]
    return image


def test_slides_whose_sheet_is_not_known_are_warned_of_and_kept(
    own: tuple[Path, Store], caplog: pytest.LogCaptureFixture
) -> None:
    sheet, store = own
    store.unregister(["S1"])
    store.register([{"slide_id": "S1", "counts": "there", "patient": "P1"}])
    edit(sheet, {"S1": None})
    with caplog.at_level(logging.WARNING):
        run(config(sheet, store.root))
    assert [record.getMessage() for record in caplog.records if record.getMessage().startswith("S1: in ")]
    assert store.stale_ids() == []


def test_a_finished_run_changes_no_file_of_the_store(own: tuple[Path, Store]) -> None:
    sheet, store = own
    before = {path: path.stat().st_mtime_ns for path in (store.root, *store.root.rglob("*"))}
    assert run(config(sheet, store.root)).unchanged == ["S1", "S2"]
    assert {path: path.stat().st_mtime_ns for path in (store.root, *store.root.rglob("*"))} == before

"""store.json tells when it is damaged, knows stale slides by their sheet, and is written only when it changes."""

import json
import shutil
from pathlib import Path

import pytest

from cache.index import INDEX_VERSION
from cache.store import Store
from magnet_core.errors import MagnetError

COMMITTED = Path(__file__).resolve().parents[1] / "data"
ROWS = [{"slide_id": name, "patient": f"of {name}", "sheet": "/a/samples.csv"} for name in ("S1", "S2", "S3")]


@pytest.fixture
def store(tmp_path: Path) -> Store:
    opened = Store.create(tmp_path / "store")
    opened.register(ROWS)
    return opened


def state(store: Store) -> dict[str, int]:
    """When each file and folder was last changed; a lock that comes and goes changes its folder."""
    return {str(path): path.stat().st_mtime_ns for path in (store.root, *store.root.rglob("*"))}


def test_no_flipped_bit_of_the_index_goes_unseen(store: Store) -> None:
    index = store.root / "store.json"
    content, samples = index.read_bytes(), store.samples()
    told = 0
    for bit in range(0, 8 * len(content), 3):
        flipped = bytearray(content)
        flipped[bit // 8] ^= 1 << bit % 8
        index.write_bytes(flipped)
        try:
            assert store.samples() == samples
        except MagnetError as error:
            told += 1
            assert str(error).startswith(f"{index}: expected ")  # noqa: PT017
    assert told > 0.9 * 8 * len(content) / 3


@pytest.mark.parametrize(
    ("content", "found"),
    [
        ({"samples": []}, "schema version None"),
        ({"schema_version": True, "samples": []}, "schema version True"),
        ({"schema_version": "2", "samples": []}, "schema version '2'"),
        ({"schema_version": 2}, "no table of slides"),
        ({"schema_version": 2, "samples": [{"slide_id": "../up"}]}, "no table of slides"),
        ({"schema_version": 2, "samples": {"slide_id": "S1"}}, "no table of slides"),
        ([], "list"),
    ],
)
def test_an_index_that_makes_no_sense_is_one_line(tmp_path: Path, content: object, found: str) -> None:
    (tmp_path / "store.json").write_text(json.dumps(content))
    with pytest.raises(MagnetError, match=rf"the index of a store.*, found {found}.*finished slides are kept"):
        Store(tmp_path)


def test_a_newer_index_is_refused_by_its_version(tmp_path: Path) -> None:
    (tmp_path / "store.json").write_text(json.dumps({"schema_version": INDEX_VERSION + 1, "samples": []}))
    with pytest.raises(MagnetError, match=rf"expected schema version {INDEX_VERSION} or older, found version"):
        Store(tmp_path)


@pytest.mark.parametrize("version", [1, 2])
def test_an_index_without_a_checksum_gets_one_when_it_changes(tmp_path: Path, version: int) -> None:
    store = Store(shutil.copytree(COMMITTED / f"store_v{version}", tmp_path / "store"))
    before = store.samples()
    assert store.stale_ids() == []
    store.register([{"slide_id": "P2"}])
    written = json.loads((store.root / "store.json").read_text())
    assert written["checksum"].startswith("xxh3_64:")
    assert written["schema_version"] == INDEX_VERSION
    assert store.samples() == [*before, {"slide_id": "P2"}]


def test_what_changes_nothing_writes_nothing(store: Store) -> None:
    before = state(store)
    Store.create(store.root)
    store.register(ROWS)
    store.unregister(["S9"])
    assert store.retire("/a/samples.csv", ["S1", "S2", "S3"]) == []
    assert state(store) == before


def test_a_slide_is_stale_once_its_own_sheet_no_longer_names_it(store: Store) -> None:
    store.register([{"slide_id": "other", "sheet": "/b/samples.csv"}, {"slide_id": "old"}])
    assert store.retire("/a/samples.csv", {"S1", "S3", "S4"}) == ["S2"]
    assert store.retire("/a/samples.csv", {"S1", "S3", "S4"}) == ["S2"]  # told again
    assert store.stale_ids() == ["S2"]
    assert store.slide_ids() == ["S1", "S2", "S3", "old", "other"]
    assert [row["slide_id"] for row in store.current_samples()] == ["S1", "S3", "old", "other"]
    store.register(ROWS)
    assert store.stale_ids() == []


def test_the_patient_is_that_of_the_row(store: Store) -> None:
    store.register([{"slide_id": "S2", "patient": "corrected"}, {"slide_id": "S9"}])
    assert [store.patient(name) for name in ("S1", "S2", "S9")] == ["of S1", "corrected", "S9"]
    with pytest.raises(MagnetError, match="did you mean"):
        store.patient("S4")


def test_a_store_that_cannot_be_written_to_is_one_line(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr("cache.index.FileLock.acquire", refuse)
    store.register(ROWS)
    with pytest.raises(MagnetError, match="store.json: Read-only file system; name a folder"):
        store.register([{"slide_id": "S9"}])

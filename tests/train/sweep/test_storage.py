"""What `--storage` takes, and what of it is shown; and a journal of which a killed process left half a line."""

from pathlib import Path

import optuna
import pytest
from sqlalchemy.engine import make_url

from magnet_core.errors import MagnetError
from train.sweep.storage import JournalLock, Storage, open_journal, parse_storage

SECRET = "hunter22"  # noqa: S105


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("sqlite:///study.db", "found sqlite://; name a journal file"),
        (f"sqlite+pysqlite:///x?password={SECRET}", "found sqlite://"),
        (f"elephants://me:{SECRET}@host/db", "found elephants://; choose one of them"),
        (f"://me:{SECRET}@host", "found an address that cannot be read"),
        (f"postgresql://me:{SECRET}@host:port/db", "found an address that cannot be read"),
        ("", "found the folder ''; name a file in it"),
        (f"oracle+cx_oracle://me:{SECRET}@host/db", "expected the package 'cx_Oracle', found it is not installed"),
    ],
)
def test_what_several_commands_cannot_share_is_one_line_without_secrets(text: str, says: str) -> None:
    with pytest.raises(MagnetError, match=r"^--storage") as told:
        parse_storage(text)
    assert says in str(told.value)
    assert SECRET not in str(told.value)


def test_a_folder_is_no_journal(tmp_path: Path) -> None:
    with pytest.raises(MagnetError, match=r"--storage: expected .*, found the folder"):
        parse_storage(str(tmp_path))


def test_a_place_is_named_without_user_password_and_options(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sqlalchemy.dialects.postgresql.psycopg2.PGDialect_psycopg2.import_dbapi", lambda: None)
    storage = parse_storage(f"postgresql+psycopg2://me:{SECRET}/1@host:5433/db?password={SECRET}")
    assert storage.place == "postgresql://host:5433/db"
    assert storage.recorded(Path()) == storage.place
    assert SECRET not in repr(storage)


def test_what_a_database_says_is_one_line_without_the_password(tmp_path: Path) -> None:
    url = make_url(f"sqlite:///{tmp_path}/{SECRET}/none.db").set(password=SECRET)
    says = "a place: expected a database that takes and gives trials, found"
    with pytest.raises(MagnetError, match=says) as told, Storage("a place", url).opened():
        pass
    assert SECRET not in str(told.value)
    assert told.value.__cause__ is None


def test_a_journal_in_the_folder_is_recorded_by_its_path_from_there(tmp_path: Path) -> None:
    assert parse_storage(str(tmp_path / "sweep" / "study.journal")).recorded(tmp_path / "sweep") == "study.journal"
    assert parse_storage(str(tmp_path / "study.journal")).recorded(tmp_path / "sweep") == str(
        tmp_path / "study.journal"
    )


def test_half_a_line_is_cut_off_before_the_next_is_written(tmp_path: Path) -> None:
    path = tmp_path / "study.journal"
    optuna.create_study(storage=open_journal(path), study_name="one")
    whole = path.read_bytes()
    path.write_bytes(whole + b'{"op_code":4,"worker_id":"' + b"x" * 5000)
    optuna.create_study(storage=open_journal(path), study_name="two")
    assert path.read_bytes().startswith(whole)
    assert optuna.get_all_study_names(open_journal(path)) == ["one", "two"]
    assert [each.name for each in tmp_path.iterdir()] == ["study.journal"]
    path.write_bytes(b'{"op_')
    with_lock = JournalLock(path)
    assert with_lock.acquire()
    with_lock.release()
    assert path.read_bytes() == b""


@pytest.mark.parametrize("content", ["[space]", "SQLite format 3"])
def test_a_file_of_another_kind_stays_as_it_is(tmp_path: Path, content: str) -> None:
    path = tmp_path / "sweep.toml"
    path.write_text(content)
    with pytest.raises(MagnetError, match=r"sweep.toml: expected a journal file of Optuna, or none yet"):
        open_journal(path)
    assert path.read_text() == content

"""A cut of the attack, as a process of its own: forked children want a parent without the threads of a test runner."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.faults.record import Row, write_rows

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which the first attack leaves its inputs for the others."""
    return tmp_path_factory.mktemp("faults") / "base"


def attacked(base: Path, record: Path, *arguments: str) -> list[dict[str, Any]]:
    """Rows of the attacks that are named, after all of them."""
    subprocess.run(
        [sys.executable, "-m", "tests.faults", *arguments, "--base", str(base), "--out", str(record)],
        cwd=ROOT, env={**os.environ, "OMP_NUM_THREADS": "1"}, check=False, capture_output=True,
    )  # fmt: skip
    rows: list[dict[str, Any]] = json.loads(record.read_bytes())["rows"]
    return rows


@pytest.mark.timeout(300)
def test_kills_lose_nothing_and_a_flipped_bit_is_never_wrong_without_a_word(base: Path, tmp_path: Path) -> None:
    rows = attacked(base, tmp_path / "record.json", "kills", "flips", "--commands", "extract run,cache import")
    assert sum(row["tried"] for row in rows) > 50
    assert [row for row in rows if row["failed"]] == []


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("attack", ["kills", "cuts", "swaps", "full_disk", "refusals", "together", "sheets"])
def test_nothing_is_lost_nothing_is_wrong_and_nothing_is_a_traceback(base: Path, tmp_path: Path, attack: str) -> None:
    rows = attacked(base, tmp_path / "record.json", attack)
    assert rows
    assert [row for row in rows if row["failed"]] == []


def test_a_record_keeps_the_rows_of_other_attacks(tmp_path: Path) -> None:
    first, again, other = Row("a"), Row("a"), Row("b")
    first.add("wrong", "a digit")
    again.add(None, "")
    for row in (first, other, again):
        write_rows(tmp_path / "record.json", [row.close()], seed=0)
    rows = json.loads((tmp_path / "record.json").read_bytes())["rows"]
    assert [(row["what"], row["tried"], row["failed"]) for row in rows] == [("a", 1, 0), ("b", 0, 0)]

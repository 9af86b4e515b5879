"""Files that once ended a reader otherwise than in one line; new ones are looked for by `make fuzz`."""

import itertools
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.fuzz.mutate import mutations

ROOT = Path(__file__).resolve().parents[2]
CORPUS = Path(__file__).with_name("corpus")


@pytest.mark.timeout(300)
def test_every_reader_answers_what_was_found_before_in_one_line(tmp_path: Path) -> None:
    record = tmp_path / "record.json"
    done = subprocess.run(
        [sys.executable, "-m", "tests.fuzz", "--minutes", "0", "--out", str(record)],
        cwd=ROOT, env={**os.environ, "OMP_NUM_THREADS": "1"}, check=False, capture_output=True, text=True,
    )  # fmt: skip
    rows = json.loads(record.read_bytes())["rows"]
    assert sum(row["tried"] for row in rows) == len([path for path in CORPUS.rglob("*") if path.is_file()]), done.stderr
    assert [row for row in rows if row["failed"]] == []


def test_mutants_differ_from_the_file_and_are_the_same_for_the_same_seed() -> None:
    whole = bytes(range(256)) * 4
    first, again = (list(itertools.islice(mutations(3, whole), 50)) for _ in range(2))
    assert first == again
    assert len({*first}) > 40
    assert sum(mutant != whole for mutant in first) > 45

"""Records of ours that anybody changed: store.json, run.json, study.json of any content are read, or end in one line.

The examples are drawn from a fixed seed, so that a run is the same every time.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cache.store import Store
from magnet_core.errors import MagnetError
from train.learning.trained_run import load_run
from train.places import our_cell, read_record
from train.report.folder import read_json

KEYS = ("schema_version", "samples", "slide_id", "provenance", "rows", "ours", "cells", "config", "panel", "id", "name",
        "backbone", "fine_dim", "context_dims", "files", "checksum")  # fmt: skip
FLOATS = st.floats(allow_subnormal=False)  # libraries that are compiled for speed make zeros of subnormal numbers
leaves = st.one_of(
    st.none(), st.booleans(), st.integers(-2, 5), FLOATS, st.sampled_from(["", "../x", "S1", "xxh3_64:0"])
)
contents = st.recursive(
    leaves,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(KEYS), inner, max_size=5),
    max_leaves=15,
)
bounded = settings(
    max_examples=30,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


def read_store(folder: Path) -> object:
    store = Store(folder)
    return store.slide_ids(), store.provenance()


READERS: dict[str, tuple[str, Callable[[Path], object]]] = {
    "a store": ("store.json", read_store),
    "a run": ("run.json", load_run),
    "a table": ("study.json", read_record),
    "a fit": ("study.json", our_cell),
    "a page": ("study.json", lambda folder: read_json(folder / "study.json")),
}


@pytest.mark.parametrize("reader", READERS)
@bounded
@given(content=contents, start=st.sampled_from(["", "[" * 100_000, '{"a":' * 100_000, "1" * 5000, "\\ud800"]))
def test_any_record(tmp_path: Path, reader: str, content: Any, start: str) -> None:
    name, read = READERS[reader]
    folder = tmp_path / "record"
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(start + json.dumps(content))
    (folder / "model.safetensors").write_bytes(b"")
    try:
        read(folder)
    except MagnetError as error:
        line = str(error)
        assert line.isprintable()
        assert len(line) < 4000

"""A plan foretells what a run writes, to the byte, and writes nothing; each run leaves its record."""

import json
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from cache.reader import ArrayFile
from extract.cli import app
from extract.config import EmbeddingConfig, GeometryConfig, RunConfig
from extract.levels import Level
from extract.pipeline import run
from extract.plan import plan_run
from extract.probe import occupied_squares

BACKBONE = "timm:test_convnext"


def config(samples: Path, store: Path, **embedding: object) -> RunConfig:
    return RunConfig(
        samples=samples,
        store=store,
        geometry=GeometryConfig(bins=60, spots=12, window=6),
        embedding=EmbeddingConfig(**{"backbone": BACKBONE, "weights": "random", "token_grid": 2} | embedding),  # type: ignore[arg-type]
        slides=("S1",),
    )


def array_bytes(store: Path) -> int:
    total = 0
    for path in store.glob("*/*.lmdb"):
        with ArrayFile(path) as file:
            total += sum(file.spec(name).nbytes for name in file.names())
    return total


def test_plan_foretells_rows_and_bytes_of_the_run_and_writes_nothing(small_samples: Path, tmp_path: Path) -> None:
    store = tmp_path / "store"
    wanted = config(small_samples, store)
    (planned,) = plan_run(wanted).slides
    assert not store.exists()
    run(wanted)
    assert planned.nbytes == array_bytes(store)
    with ArrayFile(store / "S1" / "geometry.lmdb") as geometry:
        assert planned.rows == {level: geometry.spec(f"{level}/barcode").rows for level in geometry.header["levels"]}
    assert planned.encode == sum(planned.rows.values())
    assert planned.decode_seconds.low > 0
    assert planned.encode_seconds.low > 0

    again = plan_run(wanted)  # now it is there
    assert (again.slides[0].nbytes, again.probed) == (0, 0)
    assert "already there" in again.lines()[0]

    before = array_bytes(store)
    other = config(small_samples, store, token_grid=1)  # only the features are lacking
    (lacking,) = plan_run(other).slides
    run(other)
    assert lacking.nbytes == array_bytes(store) - before

    changed = wanted.changed(geometry=GeometryConfig(bins=70))
    assert "found one that differs in bins" in plan_run(changed).failed["S1"]


def test_dry_run_names_the_bad_slide_plans_the_others_and_exits_with_1(small_samples: Path, tmp_path: Path) -> None:
    (tmp_path / "broken.tif").write_bytes(b"not a slide")
    sheet = tmp_path / "samples.csv"
    folder = small_samples.parent / "S2"
    sheet.write_text(
        f"slide_id,image,counts,mpp\nA,broken.tif,,0.25\nS2,{folder / 'S2_tissue_image.btf'},{folder / 'outs'},\n"
    )
    options = ["--backbone", BACKBONE, "--weights", "random", "--tokens", "1", "--bins", "60", "--spots", "12"]
    arguments = ["run", "--samples", str(sheet), "--store", str(tmp_path / "store"), *options]
    dry = CliRunner().invoke(app, [*arguments, "--dry-run"])
    assert dry.exit_code == 1
    assert dry.stdout.startswith("S2: bin_008um ")
    assert "nothing was written" in dry.stdout
    assert dry.stderr.startswith("failed: A: ")
    assert not (tmp_path / "store").exists()

    real = CliRunner().invoke(app, arguments)
    assert real.exit_code == 1
    (record,) = (tmp_path / "store" / "runs").glob("*.json")
    assert str(record) in real.stdout
    told = json.loads(record.read_text())
    assert (told["written"], told["unchanged"], list(told["failed"])) == (["S2"], [], ["A"])
    assert told["seconds"] > 0
    assert told["settings"]["embedding"]["backbone"] == BACKBONE
    assert told["settings"]["store"] == str(tmp_path / "store")
    assert "torch" in told["versions"]


def test_squares_are_counted_once_whatever_levels_share_them() -> None:
    def level(points: list[tuple[float, float]]) -> Level:
        centres_um = np.array(points)
        return Level("x", 56.0, centres_um, np.array([""] * len(points)), np.zeros((len(points), 0), np.int32))

    squares = occupied_squares([level([(1, 1), (100, 100), (130, 1)]), level([(64, 64), (1, 300)])])
    assert squares.tolist() == [[0, 0], [1, 0], [0, 2]]


@pytest.mark.parametrize("option", [["--tokens", "0"], ["--sampling", "some"]])
def test_wrong_settings_are_refused_by_a_dry_run_too(small_samples: Path, option: list[str]) -> None:
    result = CliRunner().invoke(app, ["run", "--samples", str(small_samples), "--dry-run", *option])
    assert "change the setting" in str(result.exception)

"""`extract plan` foretells rows and bytes of a store that `extract run` then writes, and says what is measured."""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from cache.reader import ArrayFile
from extract.cli import app
from extract.config import EmbeddingConfig, GeometryConfig, RunConfig
from extract.forecast.slide import FEATURES, KINDS, SlideForecast, Tissue, forecast_slide, genes_seen, kind_of
from extract.pipeline import run
from magnet_core.errors import MagnetError

BACKBONE = "timm:test_convnext"
GENES = 60  # of the synthetic slides


def config(samples: Path, store: Path, sampling: str) -> RunConfig:
    return RunConfig(
        samples=samples,
        store=store,
        geometry=GeometryConfig(sampling=sampling, bins=300, spots=20, window=6),  # type: ignore[arg-type]
        embedding=EmbeddingConfig(backbone=BACKBONE, weights="random", token_grid=2),
        slides=("S1",),
    )


def stored(store: Path) -> tuple[Counter[str], int, dict[str, int]]:
    """Array bytes by kind, bytes of the files, and the rows of each level."""
    by_kind: Counter[str] = Counter()
    files = sorted((store / "S1").rglob("*.lmdb"))
    for path in files:
        with ArrayFile(path) as file:
            for name in file.names():
                kind = FEATURES if file.header["kind"] == "features" else kind_of(name.partition("/")[2])
                by_kind[kind] += file.spec(name).nbytes
            if file.header["kind"] == "geometry":
                rows = {level: file.spec(f"{level}/barcode").rows for level in file.header["levels"]}
    return by_kind, sum(path.stat().st_size for path in files), rows


def tissue_of(store: Path) -> Tissue:
    with ArrayFile(store / "S1" / "geometry.lmdb") as geometry:
        bins = geometry.spec("bin_008um/barcode").rows
        molecules = float(np.sum(geometry.read("bin_008um/counts/values"))) / bins
    return Tissue(mm2=bins * 64e-6, genes=GENES, molecules=molecules)


def test_bytes_of_a_store_are_foretold_within_a_tenth(small_samples: Path, tmp_path: Path) -> None:
    """The tissue of the slide is no square, which is all that the two differ in beside the genes that are seen."""
    wholly = config(small_samples, tmp_path / "all", "all")
    assert run(wholly).failed == {}
    tissue = tissue_of(wholly.store)
    windows = config(small_samples, tmp_path / "windows", "windows")
    assert run(windows).failed == {}
    for each in (wholly, windows):
        foretold = forecast_slide(each, tissue)
        by_kind, nbytes, rows = stored(each.store)
        assert {level.name for level in foretold.levels} == rows.keys()
        assert sum(foretold.nbytes.values()) == pytest.approx(nbytes, rel=0.1)
        assert foretold.nbytes["pixels"] == pytest.approx(by_kind["pixels"], rel=0.1)
        assert foretold.encode == pytest.approx(sum(rows.values()), rel=0.1)
        for kind in KINDS:  # what a page holds beside counts a little more where arrays are small
            assert foretold.nbytes[kind] >= by_kind[kind] * 0.9


def test_a_slide_of_bins_of_8_um_has_as_many_as_its_area_says(tmp_path: Path) -> None:
    every = config(tmp_path, tmp_path, "all")
    slide = forecast_slide(every, Tissue(mm2=1.0))
    rows = {level.name: level.rows for level in slide.levels}
    assert rows["bin_008um"] == slide.bins == 125**2
    assert rows["bin_016um"] == 62**2
    assert rows["spot"] == rows["centre"] == 18**2
    assert rows["region"] == 8**2
    assert slide.decode_mpx == pytest.approx(64 * 0.262144)


def test_settings_change_what_is_kept(tmp_path: Path) -> None:
    def foretold(**changes: object) -> SlideForecast:
        settings = config(tmp_path, tmp_path, "windows").changed(**changes)
        return forecast_slide(settings, Tissue(mm2=0.3))

    usual, without, views = foretold(), foretold(pixels=False), foretold(embedding={"views": 8})
    assert without.nbytes == {**usual.nbytes, "pixels": 0}
    assert views.encode == 8 * usual.encode
    assert views.nbytes["features"] == pytest.approx(8 * usual.nbytes["features"], rel=0.01)


def test_more_molecules_and_larger_squares_show_more_genes() -> None:
    tissue = Tissue(genes=1000, molecules=100.0)
    seen = [genes_seen(tissue, side_um=side) for side in (8.0, 16.0, 56.0, 128.0)]
    assert seen == sorted(set(seen))
    assert seen[0] < 100
    assert seen[-1] <= 1000
    assert genes_seen(Tissue(genes=1000, molecules=0.0), side_um=128.0) == 0


def test_the_command_says_in_each_row_what_is_measured() -> None:
    arguments = ["plan", "--tissue-mm2", "0.3", "--backbone", "resnet50", "--price", "2", "--gpus", "4"]
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 0
    times = done.stdout.partition("The time\n")[2].partition("\n\n")[0].splitlines()[2:]
    assert [line.split()[0] for line in times] == ["10", "10", "1,000", "1,000", "100,000", "100,000"]
    assert all(("measured" if "core" in line else "simulated") in line for line in times)
    for note in ("measured: ", "simulated: ", "left out: ", "days with 4", "EUR"):
        assert note in done.stdout


def test_mistakes_are_one_line() -> None:
    done = CliRunner().invoke(app, ["plan", "--gpu", "abacus"])
    assert isinstance(done.exception, MagnetError)
    assert "--gpu: expected a known name" in str(done.exception)

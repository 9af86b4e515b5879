"""A fault of one slide, of whatever kind, is one line and the rest go on; a full disk ends the run, in one line."""

import errno
import os
import subprocess
import sys
from pathlib import Path

import polars as pl
import pytest
from typer.testing import CliRunner

from extract import inspection, pipeline, plan
from extract.cli import app
from extract.config import EmbeddingConfig, RunConfig
from extract.faults import slide_faults
from extract.inspection import Inspection, inspect_slides
from extract.preflight import Accepted, accept
from magnet_core.errors import MagnetError, PlaceError
from magnet_core.records import Sample

FAULTS = [
    (PermissionError(errno.EACCES, os.strerror(errno.EACCES), "S1.tif"), "Permission denied: S1.tif; check the path"),
    (OSError(errno.EIO, os.strerror(errno.EIO)), "found Input/output error"),
    (OSError(errno.ENAMETOOLONG, os.strerror(errno.ENAMETOOLONG), "S1" * 200), "File name too long"),
    (UnicodeEncodeError("ascii", "GENÉ", 3, 4, "ordinal not in range(128)"), "UnicodeEncodeError"),
    (MemoryError(), "found MemoryError; give it more memory"),
    (pl.exceptions.PanicException("range end index 9 out of range"), "PanicException: range end index 9"),
    (KeyError("barcodes"), "KeyError: 'barcodes'"),
    (RecursionError("maximum recursion depth exceeded"), "RecursionError"),
]
SLIDES = Accepted((Sample("S1", Path("S1.tif")), Sample("S2", Path("S2.tif"))), {})


def config(folder: Path) -> RunConfig:
    return RunConfig(
        samples=folder / "samples.csv",
        store=folder / "store",
        embedding=EmbeddingConfig(backbone="timm:test_convnext", weights="random", token_grid=1),
    )


def fails(first: BaseException, *, then: object) -> object:
    """A function that raises for slide S1, and returns `then` for others."""

    def work(sample: Sample, *_: object, **__: object) -> object:
        if sample.slide_id == "S1":
            raise first
        return then

    return work


@pytest.mark.parametrize(("fault", "said"), FAULTS)
def test_a_slide_with_any_fault_is_one_line_in_run_plan_preflight_and_inspect(
    fault: BaseException, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "samples.csv").write_text("slide_id,image\nS1,S1.tif\nS2,S2.tif\n")
    monkeypatch.setattr(pipeline, "extract_slide", fails(fault, then=5))
    monkeypatch.setattr(pipeline, "register", lambda *_, **__: None)
    summary = pipeline.run(config(tmp_path), SLIDES)
    assert (summary.written, summary.patches) == (["S2"], 5)

    monkeypatch.setattr(plan, "plan_slide", fails(fault, then=plan.SlidePlan("S2")))
    planned = plan.plan_run(config(tmp_path), SLIDES)
    assert [slide.slide_id for slide in planned.slides] == ["S2"]

    monkeypatch.setattr("extract.preflight.check_files", fails(fault, then=None))
    accepted = accept(config(tmp_path))
    assert [sample.slide_id for sample in accepted.samples] == ["S2"]

    monkeypatch.setattr(inspection, "_inspect", fails(fault, then=Inspection("S2")))
    inspected = list(inspect_slides(list(SLIDES.samples), None))
    assert [each.slide_id for each in inspected] == ["S1", "S2"]

    for text in (summary.failed["S1"], planned.failed["S1"], accepted.failed["S1"], inspected[0].error):
        assert text is not None
        assert text.startswith("slide 'S1': expected ")
        assert said in text
        assert "\n" not in text


def test_a_mistake_of_ours_and_a_signal_are_no_faults_of_a_slide() -> None:
    for error in (TypeError("x"), AttributeError("x"), KeyboardInterrupt()):
        with pytest.raises(type(error)), slide_faults("S1"):
            raise error


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EROFS])
def test_a_full_disk_ends_the_run_at_once(number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tried = []

    def full(sample: Sample, *_: object, **__: object) -> None:
        tried.append(sample.slide_id)
        raise OSError(number, os.strerror(number), str(tmp_path / "store" / "S1"))

    (tmp_path / "samples.csv").write_text("slide_id,image\nS1,S1.tif\nS2,S2.tif\n")
    monkeypatch.setattr(pipeline, "extract_slide", full)
    with pytest.raises(PlaceError, match=f"{os.strerror(number)}; free space"):
        pipeline.run(config(tmp_path), SLIDES)
    assert tried == ["S1"]


def test_an_image_whose_name_is_too_long_is_one_line(tmp_path: Path) -> None:
    sheet = tmp_path / "samples.csv"
    sheet.write_text(f"slide_id,image\nS1,{'x' * 300}.tif\nS2,absent.tif\n")
    for command in ("run", "inspect"):
        told = CliRunner().invoke(app, [command, "--samples", str(sheet)])
        assert told.exit_code == 1
        assert not isinstance(told.exception, OSError)
    assert told.stderr.splitlines()[0].startswith("S1: failed: slide 'S1': expected column 'image'")
    assert told.stderr.splitlines()[1].startswith("S2: failed: slide 'S2': expected column 'image'")


@pytest.mark.slow
def test_a_run_on_a_full_disk_is_one_line_and_resumes(small_samples: Path, tmp_path: Path) -> None:
    options = ["--samples", str(small_samples), "--store", str(tmp_path), "--backbone", "timm:test_convnext"]
    small = ["--weights", "random", "--tokens", "1", "--targets", "55", "--spots", "30", "--device", "cpu"]
    limited = """
import resource
from extract.__main__ import main
resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, resource.RLIM_INFINITY))
main()
"""
    command = ["run", *options, *small]
    full = subprocess.run([sys.executable, "-c", limited, *command], capture_output=True, text=True, check=False)
    assert full.returncode == 1
    assert "Traceback" not in full.stderr
    assert full.stderr.splitlines()[-1].startswith(f"error: {tmp_path}")
    assert full.stderr.count("expected a disk that takes more") == 1
    done = subprocess.run([sys.executable, "-m", "extract", *command], capture_output=True, text=True, check=True)
    assert "written: S1, S2" in done.stdout


def test_faults_are_errors_of_one_line_that_name_the_slide() -> None:
    with pytest.raises(MagnetError, match="^slide 'S1': expected "), slide_faults("S1"):
        raise ValueError("two\nlines")

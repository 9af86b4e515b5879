"""A fault of one slide, of whatever kind, is one line and the rest go on; a full disk ends the run, in one line."""

import errno
import os
import re
import subprocess
import sys
from contextlib import AbstractContextManager
from pathlib import Path

import lmdb
import polars as pl
import pytest
from typer.testing import CliRunner

from cache.index import writing
from cache.lmdb_file import one_line_errors
from cache.repair import Finding, survey
from cache.store import Store
from extract import inspection, pipeline, plan
from extract.cli import app
from extract.config import EmbeddingConfig, RunConfig
from extract.faults import slide_faults
from extract.inspection import Inspection, inspect_slides
from extract.preflight import Accepted, accept
from extract.readers import legacy_st, read_counts
from magnet_core import environment
from magnet_core.errors import MagnetError, PlaceError
from magnet_core.records import Sample

FAULTS = [
    (
        PermissionError(errno.EACCES, os.strerror(errno.EACCES), "S1.tif"),
        "slide 'S1': S1.tif: Permission denied; check the path and its rights",
    ),
    (OSError(errno.EIO, os.strerror(errno.EIO)), "slide 'S1': Input/output error; check the disk, the room on it"),
    (OSError(errno.ENAMETOOLONG, os.strerror(errno.ENAMETOOLONG), "S1" * 200), "File name too long; give a shorter"),
    (MemoryError(), "slide 'S1': memory ran out (MemoryError); free memory"),
    (pl.exceptions.PanicException("range end index 9 out of range"), "PanicException: range end index 9"),
    (UnicodeEncodeError("ascii", "GENÉ", 3, 4, "ordinal not in range(128)"), "may be a fault of the program: --verb"),
    (KeyError("barcodes"), "KeyError: 'barcodes'; this may be a fault of the program: --verbose says"),
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
        assert text.startswith("slide 'S1': ")
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
    line = f"{tmp_path / 'store' / 'S1'}: {os.strerror(number)}; {environment.FAULTS[number].remedy}"
    with pytest.raises(PlaceError, match=re.escape(line)):
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
    told = environment.FAULTS[errno.EFBIG], environment.FAULTS[errno.EIO]  # LMDB calls a page half written the latter
    assert sum(full.stderr.count(fault.remedy) for fault in told) == 1
    done = subprocess.run([sys.executable, "-m", "extract", *command], capture_output=True, text=True, check=True)
    assert "written: S1, S2" in done.stdout


def test_faults_are_errors_of_one_line_that_name_the_slide() -> None:
    with pytest.raises(MagnetError, match="^slide 'S1': expected "), slide_faults("S1"):
        raise ValueError("two\nlines")


@pytest.mark.parametrize("error", [KeyError("barcodes"), ValueError("no counts"), OverflowError("too large")])
def test_what_a_reader_raises_of_foreign_bytes_is_no_fault_of_the_program(
    error: Exception, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def damaged(_: Path) -> None:
        raise error

    counts = tmp_path / "A1.tsv.gz"
    counts.write_bytes(b"x")
    monkeypatch.setattr(legacy_st, "read", damaged)
    monkeypatch.setattr(legacy_st, "files", lambda path: [path])
    with pytest.raises(MagnetError, match="found .*; check the slide's files; --verbose"), slide_faults("S1"):
        read_counts(Sample("S1", tmp_path / "S1.tif", counts=counts, platform="legacy_st"))


def test_a_full_disk_reads_the_same_wherever_it_is_met(tmp_path: Path) -> None:
    path = tmp_path / "geometry.lmdb.partial"
    said = os.strerror(errno.ENOSPC)

    def full() -> OSError:
        return OSError(errno.ENOSPC, said, str(path))

    lines = [environment.fault_line(full())]
    met: list[AbstractContextManager[None]]
    met = [slide_faults("S1"), one_line_errors(path, remedy="x"), writing(path)]
    for place in met:
        with pytest.raises(PlaceError) as told, place:
            raise full()
        lines.append(str(told.value))
    of_lmdb: type[Exception] = lmdb.DiskError
    with pytest.raises(PlaceError) as told, one_line_errors(path, remedy="x"):
        raise of_lmdb(f"{path}: {said}")
    lines.append(str(told.value))
    assert {*lines} == {f"{path}: {said}; {environment.FAULTS[errno.ENOSPC].remedy}"}


def test_a_slide_is_nobodys_to_take_until_it_is_registered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found: list[Finding] = []

    def write(sample: Sample, store: Store, *_: object, **__: object) -> int:
        (store.root / sample.slide_id / "geometry.lmdb").write_bytes(b"whole")
        return 5

    def look(store: Store, sample: Sample, *_: object, **__: object) -> None:
        store.register([{"slide_id": "S0"}])  # a store with other slides
        found.extend(finding for finding in survey(store) if finding.orphan == sample.slide_id)

    monkeypatch.setattr(pipeline, "extract_slide", write)
    monkeypatch.setattr(pipeline, "register", look)
    (tmp_path / "samples.csv").write_text("slide_id,image\nS1,S1.tif\nS2,S2.tif\n")
    assert pipeline.run(config(tmp_path), SLIDES).written == ["S1", "S2"]
    assert found == []
    assert {each.orphan for each in survey(Store(tmp_path / "store")) if each.orphan} == {"S1", "S2"}

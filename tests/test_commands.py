"""The commands as processes: signals and users' mistakes end them in one line, whatever they were doing."""

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import tifffile

from cache.reader import ArrayFile
from extract.synthetic.config import SynthConfig
from extract.synthetic.dataset import synthesise


def start(*arguments: str) -> subprocess.Popen[str]:
    """Start a command that heeds Ctrl-C, even where the tests are a background job, whose children ignore it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # children get the default in its place
    process = subprocess.Popen(
        [sys.executable, "-m", *arguments], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )
    signal.signal(signal.SIGINT, before)
    return process


def interrupt(process: subprocess.Popen[str], number: signal.Signals) -> list[str]:
    """Send a signal; return the lines on stderr."""
    process.send_signal(number)
    _, error = process.communicate(timeout=60)
    return error.splitlines()


@pytest.mark.parametrize("command", ["extract", "cache", "train"])
def test_help_and_mistakes_in_options_wait_for_no_import_that_takes_long(command: str) -> None:
    code = f"import sys, {command}.cli; print({{'torch', 'timm', 'numpy', 'polars', 'matplotlib'}} & set(sys.modules))"
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert told.stdout == "set()\n"


RUN = "extract run --samples {data}/samples.csv --store {data}/new"


@pytest.mark.parametrize(
    ("command", "said"),
    [
        ("extract run --samples {data}/none.csv", "none.csv: expected a sample table, found no such file"),
        ("extract run --samples {data}/column.csv", "column.csv, line 1: expected known columns, found 'bogus'"),
        (
            "extract run --samples {data}/no_image.csv --weights random",
            "failed: S1: slide 'S1': expected column 'image'",
        ),
        (f"{RUN} --slide S9", "--slide: expected a known name, found 'S9'"),
        (
            f"{RUN} --backbone resnet51",
            "--backbone: embedding.backbone: expected a known name, found 'resnet51'; did you",
        ),
        (
            f"{RUN} --set embedding.backbone=conch",
            "--set: embedding.backbone conch: expected a model that timm can build",
        ),
        (f"{RUN} --weights {{data}}/none.bin", "none.bin: expected 'pretrained', 'random' or a file"),
        (f"{RUN} --tokens 99", "--tokens: embedding.token_grid: expected 1 to 16, found 99"),
        (f"{RUN} --targets 9", "--targets: geometry.targets: expected some of 8, 16, 55, found 9"),
        (f"{RUN} --device gpu", "--device: device: expected auto, cpu, cuda or cuda:N"),
        (f"{RUN} --recipe {{data}}/bad.toml", "bad.toml: geometry: expected a known setting, found 'binz'"),
        (
            "extract run --samples {data}/samples.csv --store {data}/bad.toml",
            "expected a folder to write to, found a file",
        ),
        ("extract inspect --samples {data}/none.csv", "none.csv: expected a sample table"),
        ("extract synth {data}/synth --size-mm 99", "--size-mm: size_mm: expected 0.4 to 7"),
        ("cache info {data}/none", "none: expected a store"),
        ("cache verify {data}/none", "none: expected a store"),
        ("cache export {data}/none --slide S1 --level spot --to x.txt", "--to: expected a name ending in .h5 or .h5ad"),
        ("cache import {data}/x.h5 --store {data}/none --slide S --level spot --backbone b", "none: expected a store"),
    ],
)
def test_a_mistake_is_told_of_before_anything_that_takes_long_is_imported(
    tmp_path: Path, command: str, said: str
) -> None:
    (tmp_path / "image.tif").write_bytes(b"")
    (tmp_path / "samples.csv").write_text("slide_id,image\nS1,image.tif\n")
    (tmp_path / "column.csv").write_text("slide_id,image,bogus\nS1,image.tif,1\n")
    (tmp_path / "no_image.csv").write_text("slide_id,image\nS1,absent.tif\n")
    (tmp_path / "bad.toml").write_text("[geometry]\nbinz = 3\n")
    module, *arguments = command.format(data=tmp_path).split()
    code = f"""
import re, sys
from pathlib import Path
from {module}.__main__ import main
sys.argv = {[module, *arguments]}
try:
    main()
finally:
    slow = {{"torch", "timm", "anndata", "matplotlib"}} & set(sys.modules)
    status = Path("/proc/self/status")
    peak = re.search(r"VmHWM:\\s+(\\d+)", status.read_text()) if status.exists() else None
    print(slow, int(peak[1]) // 1024 if peak else 0)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert said in done.stderr
    assert done.stderr.count("\n") == 1
    slow, megabytes = done.stdout.rsplit(maxsplit=1)
    assert slow == "set()"
    assert int(megabytes) < 300
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("command", ["extract", "cache"])
def test_version_help_and_completion_of_a_shell(command: str) -> None:
    def told(*arguments: str, **environment: str) -> str:
        code = f"import sys; sys.argv = {[command, *arguments]}; from {command}.__main__ import main; main()"
        environment = {**os.environ, "COLUMNS": "200", **environment}
        done = subprocess.run(
            [sys.executable, "-X", "importtime", "-c", code],
            capture_output=True,
            text=True,
            check=False,
            env=environment,
        )
        assert not re.search(r"\| +(numpy|torch|polars|rich)$", done.stderr, re.MULTILINE)
        return done.stdout

    assert re.fullmatch(r"magnet-hd \d+\.\d+\.\d+\n", told("--version"))
    for option in ("--version", "-v, --verbose", "--quiet", "--show-completion"):
        assert option in told("--help")
    words = {"COMP_WORDS": f"{command} i", "COMP_CWORD": "1", f"_{command.upper()}_COMPLETE": "complete_bash"}
    assert told(**words).split() == {"extract": ["inspect"], "cache": ["info", "import"]}[command]


@pytest.mark.parametrize(
    ("command", "said"),
    [
        ("extract inspect", "interrupted; run again to resume"),
        ("train fit", "interrupted; run it again to go on from its last checkpoint"),
    ],
)
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGUSR2])
def test_a_signal_during_the_imports_is_one_line(command: str, said: str, number: signal.Signals) -> None:
    process = start(*command.split())
    maps = Path(f"/proc/{process.pid}/maps")
    if not maps.exists():
        process.kill()
        pytest.skip("needs /proc to see that the imports have begun")
    while "numpy" not in maps.read_text():
        time.sleep(0.01)
    assert interrupt(process, number) == [said]
    assert process.returncode == 128 + number


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGUSR2])
def test_a_signal_during_a_run_is_one_line_and_leaves_a_store_that_resumes(
    tmp_path: Path, number: signal.Signals
) -> None:
    samples = synthesise(tmp_path / "data", SynthConfig(slides=1, seed=1, size_mm=0.4, genes=60))
    store = tmp_path / "store"
    encoder = ["--backbone", "timm:resnet18", "--weights", "random", "--tokens", "1", "--device", "cpu"]
    rows = ["--targets", "8", "--bins", "200", "--spots", "20"]  # seconds of encoding, however fast the machine
    command = ["extract", "run", "--samples", str(samples), "--store", str(store), *encoder, *rows]
    process = start(*command)
    while not any(store.rglob("timm-resnet18-*.lmdb.partial")):  # the geometry may be done when it is hit
        assert process.poll() is None
        time.sleep(0.01)
    lines = interrupt(process, number)
    assert process.returncode == 128 + number
    assert lines[-1] == "interrupted; run again to resume"
    assert not [line for line in lines if "Traceback" in line or "Error" in line]
    assert any(store.rglob("*.lmdb.partial"))

    resumed = subprocess.run([sys.executable, "-m", *command], capture_output=True, timeout=300, check=True)
    assert b"\r" not in resumed.stdout + resumed.stderr  # as a job's log shows every one of them
    assert b"slides  1/1 slides  100 %" in resumed.stderr
    assert not any(store.rglob("*.lmdb.partial"))
    for path in store.rglob("*.lmdb"):
        with ArrayFile(path) as file:
            assert file.verify() == []


def test_a_truncated_image_is_one_line_without_the_librarys_own_words(tmp_path: Path) -> None:
    whole = tmp_path / "whole.tif"
    with tifffile.TiffWriter(whole) as writer:  # the second page lies beyond the cut
        for _ in range(2):
            writer.write(np.zeros((512, 512, 3), np.uint8), tile=(256, 256), photometric="rgb")
    (tmp_path / "cut.tif").write_bytes(whole.read_bytes()[:100_000])
    sheet = tmp_path / "samples.csv"
    sheet.write_text("slide_id,image,mpp\nP1,cut.tif,0.5\n")
    process = start("extract", "inspect", "--samples", str(sheet), "--out", str(tmp_path / "out"))
    _, error = process.communicate(timeout=60)
    assert process.returncode == 1
    assert error.startswith("P1: failed: ")
    assert error.count("\n") == 1


@pytest.mark.parametrize("name", ["empty", "absent"])
def test_a_folder_that_is_no_store_is_one_line(tmp_path: Path, name: str) -> None:
    (tmp_path / "empty").mkdir()
    process = start("cache", "info", str(tmp_path / name))
    _, error = process.communicate(timeout=60)
    assert process.returncode == 1
    assert error.startswith(f"error: {tmp_path / name}: expected a store (a folder with store.json)")
    assert error.count("\n") == 1


def test_a_path_the_system_refuses_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    process = start("extract", "synth", str(tmp_path / "file" / "below"), "--slides", "1", "--size-mm", "0.4")
    _, error = process.communicate(timeout=120)
    assert process.returncode == 1
    assert "Traceback" not in error
    assert error.splitlines()[-1].startswith(f"error: {tmp_path / 'file'}")

"""`benchmarks/bench_gpu.py`: every part in its reduced form on the CPU, its rows, and what becomes of faults."""

import importlib
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from magnet_core.forecast.rates import read_rates

ROOT = Path(__file__).resolve().parent.parent.parent
SCRIPT = ROOT / "benchmarks" / "bench_gpu.py"
BACKBONES = ("timm:test_resnet", "timm:test_vit")

Row = dict[str, Any]


@pytest.fixture
def rows_module(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The module of rows, as the scripts import it."""
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    return importlib.import_module("bench_gpu_rows")


@pytest.fixture
def script(rows_module: ModuleType) -> ModuleType:
    """The script, not run."""
    return importlib.import_module("bench_gpu")


def bench(*arguments: object) -> subprocess.CompletedProcess[str]:
    called = [sys.executable, str(SCRIPT), *map(str, arguments)]
    return subprocess.run(
        called, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    )


def check_gpu_tests(rows: list[Row], path: Path) -> None:
    [row] = rows
    assert (row["ratio"], row["passed"], row["holds"]) == (0, 0, True)
    assert row["skipped"] > 10


def check_faiss(rows: list[Row], path: Path) -> None:
    assert [row["ratio"] for row in rows if "share of" in row["what"]] == [1.0] * 6  # five layouts, and features
    assert [row["ratio"] for row in rows if "cosine" in row["what"]] == [0.0]
    assert len([row for row in rows if "cpu ÷ cpu" in row["what"]]) == 6


def check_rates(rows: list[Row], unit: str, sides_px: Sequence[int], path: Path) -> None:
    """All rates are there, and plans read them."""
    rates = read_rates(path)
    assert [(rate.backbone, rate.patch_px, rate.unit, rate.device) for rate in rates] == [
        (backbone, side, unit, "CPU") for backbone in BACKBONES for side in sides_px
    ]
    assert len(rates) == len([row for row in rows if "rate_per_s" in row])


def check_stage_one(rows: list[Row], path: Path) -> None:
    check_rates(rows, "patches", (112, 224, 512), path)
    ratios = [row["what"].partition(",")[0] for row in rows if "ratio" in row]
    assert ratios == 2 * ["extract run ÷ encoder alone", "extract run ÷ max(decode once on all workers"]


def check_stage_two(rows: list[Row], path: Path) -> None:
    check_rates(rows, "bins", (112,), path)
    memory, *steps = [row for row in rows if "ratio" in row]
    assert memory["what"] == "peak memory with gradient cache ÷ 48 GB, 24 bins, 8 at a time, timm:test_vit"
    assert 0 < memory["peak_gb"] < 48
    assert [row["what"].partition(" (")[0] for row in steps] == ["step ÷ encoder alone"] * 2


def check_compile(rows: list[Row], path: Path) -> None:
    assert [(row["what"].split(", ")[:2], row["backend"]) for row in rows] == [
        (["step compiled ÷ not", backbone], "aot_eager") for backbone in BACKBONES
    ]


def check_end_to_end(rows: list[Row], path: Path) -> None:
    assert [row["ratio"] for row in rows] == [
        0.0
    ] * 5  # the CPU against the CPU: features, and both metrics of two fits
    fits = [row for row in rows if "mse_cpu" in row]
    assert len(fits) == 2
    assert all((row["pcc_gene_device"], row["mse_device"]) == (row["pcc_gene_cpu"], row["mse_cpu"]) for row in fits)


CHECKS = {
    "gpu-tests": check_gpu_tests,
    "faiss": check_faiss,
    "stage-one": check_stage_one,
    "stage-two": check_stage_two,
    "compile": check_compile,
    "end-to-end": check_end_to_end,
}


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("part", CHECKS)
def test_a_part_finds_on_the_cpu_what_it_compares_with(part: str, tmp_path: Path) -> None:
    out = tmp_path / "gpu.json"
    done = bench("--reduced", "--device", "cpu", "--out", out, "--parts", part)
    assert done.returncode == 0, done.stderr
    machine, *rows = json.loads(out.read_text())
    assert (machine["part"], machine["device"], machine["reduced"]) == ("machine", "CPU", True)
    assert {row["part"] for row in rows} == {part}
    assert not [row for row in rows if "fault" in row]
    CHECKS[part](rows, out)


def test_rows_of_a_part_take_the_place_of_its_former_ones_alone(tmp_path: Path, rows_module: ModuleType) -> None:
    path = tmp_path / "gpu.json"
    rows_module.PartRows(path, "compile").compare("former", 2.0, 1.0)
    faiss = rows_module.PartRows(path, "faiss", "a GPU")
    faiss.compare("share", 1.0, 1.0, at_least=True, points=5)
    faiss.rate("search", 12.345, "queries", backbone="none", patch_px=224)
    assert json.loads(path.read_text()) == [
        {"part": "faiss", "what": "share", "ratio": 1.0, "goal": 1.0, "holds": True, "points": 5},
        {
            "part": "faiss",
            "what": "search",
            "backbone": "none",
            "patch_px": 224,
            "rate_per_s": 12.35,
            "unit": "queries",
            "device": "a GPU",
        },
        {"part": "compile", "what": "former", "ratio": 2.0, "goal": 1.0, "holds": False},
    ]
    assert [path.name for path in tmp_path.iterdir()] == ["gpu.json"]


def test_a_budget_gives_one_repetition_and_no_more_than_were_asked_for(rows_module: ModuleType) -> None:
    assert list(rows_module.Budget(0.0).repeats(5)) == [0]
    assert list(rows_module.Budget(3600.0).repeats(3)) == [0, 1, 2]


@pytest.mark.parametrize(
    ("program", "fault"),
    [
        ("print('fine')", ""),
        ("import sys; sys.exit('it is broken')", "exit code 1: it is broken"),
        ("import os; os.abort()", "exit code -6: nothing was said"),
        ("import time; time.sleep(600)", "it took more than 0.05 minutes"),
    ],
)
def test_a_process_that_fails_or_hangs_is_one_line(script: ModuleType, program: str, fault: str) -> None:
    limit_s = 3.0 if "sleep" in program else 300.0
    assert script.fault_of([sys.executable, "-c", program], limit_s=limit_s) == fault


def test_a_part_with_a_fault_keeps_its_rows_and_the_next_one_goes_on(
    tmp_path: Path, script: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "gpu.json"

    def fails_in_faiss(called: list[str], *, limit_s: float) -> str:
        part = called[called.index("--parts") + 1]
        script.PartRows(out, part).compare("measured", 1.0, 1.0)
        return "exit code 1: out of memory" if part == "faiss" else ""

    monkeypatch.setattr(script, "fault_of", fails_in_faiss)
    monkeypatch.setattr(script.signal, "signal", lambda *_: None)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert script.main(["--parts", "faiss,compile", "--reduced", "--device", "cpu", "--out", str(out)]) == 1
    rows = [row for row in json.loads(out.read_text()) if row["part"] != "machine"]
    assert [(row["part"], row["what"], row.get("fault")) for row in rows] == [
        ("faiss", "measured", None),
        ("faiss", "the part ended early", "exit code 1: out of memory"),
        ("compile", "measured", None),
    ]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--reduced"], "--out: expected a file"),
        (["--device", "cpu"], "--out: expected a file"),
        (["--parts", "fiass"], "expected some of gpu-tests, faiss"),
    ],
)
def test_options_that_cannot_be_meant_are_refused(
    script: ModuleType, options: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        script.parse(options)
    assert said in capsys.readouterr().err


def test_the_parts_are_within_twenty_minutes(script: ModuleType, rows_module: ModuleType) -> None:
    assert sum(part.minutes for part in script.PARTS.values()) == 20
    assert ("machine", *script.PARTS) == rows_module.PARTS
    assert list(script.PARTS) == list(CHECKS)

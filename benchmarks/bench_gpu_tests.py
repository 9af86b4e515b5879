"""The part `gpu-tests` of `bench_gpu.py`: the tests that need a GPU, in a process of their own.

In: the tests' files. Out: a row of how many failed, passed and were skipped.
"""

import re
import subprocess
import sys
from pathlib import Path

from bench_gpu_rows import Budget, PartRows, Scale

ROOT = Path(__file__).resolve().parent.parent
MARK = "pytest.mark.gpu"
FINISHED = (0, 1)  # what pytest returns where all tests passed, and where some failed


def gpu_tests(scale: Scale, rows: PartRows, budget: Budget) -> None:
    """Run the files that hold such tests; without a GPU all are skipped. What other tests import need not be there."""
    files = sorted(path for path in (ROOT / "tests").rglob("test_*.py") if MARK in path.read_text(encoding="utf-8"))
    called = [sys.executable, "-m", "pytest", "-m", "gpu", "-p", "no:cacheprovider", *map(str, files)]
    done = subprocess.run(called, cwd=ROOT, text=True, stdout=subprocess.PIPE)
    last = done.stdout.strip().rpartition("\n")[2]
    counts = {what: int(number) for number, what in re.findall(r"(\d+) (passed|failed|skipped|errors?)", last)}
    failed = counts.get("failed", 0) + counts.get("error", 0) + counts.get("errors", 0)
    if done.returncode not in FINISHED:
        raise SystemExit(f"pytest ended with {done.returncode}: {last}")
    if failed:
        print(done.stdout)
    told = {what: counts.get(what, 0) for what in ("passed", "skipped")}
    rows.compare("tests marked gpu that failed", failed, 0, files=len(files), **told)

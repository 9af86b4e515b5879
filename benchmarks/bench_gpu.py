"""All that only a GPU can show, by one command and within 20 minutes; writes benchmarks/results/gpu.json.

    gpu-tests    the tests marked `gpu`
    faiss        FAISS on the GPU against the CPU
    stage-one    `extract run` for resnet50 and ViT-L/16 in bf16 against their encoders alone
    stage-two    steps at batch 256 for both against the encoder alone; memory with the gradient cache
    compile      steps with the encoder compiled against steps without
    end-to-end   both stages on the GPU against both on the CPU: the same metrics within bounds

Each part is a process of its own with a limit of time, so that neither a fault nor a stop costs more than what it was
at; its rows, those of `bench_gpu_rows`, are in the file as soon as they are measured, and parts left out keep theirs.
Nothing is fetched: weights are drawn from a seed. What the tests run is `--reduced` on the CPU, the same lines at
small sizes. Ends with exit code 1 where a part has a fault; a goal that is missed is told, and none.

    PYTHONPATH=. python benchmarks/bench_gpu.py --parts faiss,stage-one
    PYTHONPATH=. python benchmarks/bench_gpu.py --reduced --device cpu --out gpu-reduced.json
"""

import argparse
import os
import platform
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

import torch
from bench_gpu_rows import Budget, PartRows, Row, Scale, read_rows, write_part

from magnet_core.device import pick_device
from magnet_core.errors import MagnetError

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results" / "gpu.json"
PATIENCE_OF_REDUCED = 20  # times the limit: sizes are small, but a CPU that others use may be slow
SHOWN_LINES = 30  # of what a part that failed has said


@dataclass(frozen=True)
class Part:
    """What measures a part, imported in its own process alone, and the minutes after which it is ended; 20 together."""

    module: str
    function: str
    minutes: float

    def limit_s(self, scale: Scale) -> float:
        """Seconds it may take."""
        return 60 * self.minutes * (PATIENCE_OF_REDUCED if scale.reduced else 1)

    def measure(self, rows: PartRows, scale: Scale) -> None:
        """Measure it here."""
        function: Callable[[Scale, PartRows, Budget], None] = getattr(import_module(self.module), self.function)
        function(scale, rows, Budget(self.limit_s(scale)))


PARTS = {
    "gpu-tests": Part("bench_gpu_tests", "gpu_tests", 2),
    "faiss": Part("bench_gpu_faiss", "faiss_search", 2),
    "stage-one": Part("bench_gpu_stages", "stage_one", 4),
    "stage-two": Part("bench_gpu_stages", "stage_two", 3),
    "compile": Part("bench_gpu_stages", "compiling", 5),
    "end-to-end": Part("bench_gpu_end_to_end", "end_to_end", 4),
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure the parts in turn, each in a process; returns the exit code."""
    given = parse(arguments)
    if given.device == "cpu":
        os.environ["CUDA_VISIBLE_DEVICES"] = ""
    try:
        pick_device(given.device)
    except MagnetError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    scale = Scale.choose(given.device, reduced=given.reduced)
    if given.within:
        for name in given.parts:
            PARTS[name].measure(PartRows(given.out, name, scale.device_name), scale)
        return 0
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # so that no part is left behind
    about_machine(PartRows(given.out, "machine"), scale)
    faults = 0
    for name in given.parts:
        faults += not done_in_time(name, scale, given.out)
    told(read_rows(given.out), given.out)
    return min(faults, 1)


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Read the options; a small run is never mistaken for a large one's results."""
    parser = argparse.ArgumentParser(description="All that only a GPU can show; see docs/gpu.md.")
    parser.add_argument("--parts", default=",".join(PARTS), help="which to measure, by comma; the others' rows stay")
    parser.add_argument("--device", default="cuda", help="cuda, cuda:N or cpu")
    parser.add_argument("--reduced", action="store_true", help="small sizes and small encoders; needs --out")
    parser.add_argument("--out", type=Path, help=f"default: {RESULTS.relative_to(ROOT)}")
    parser.add_argument("--within", action="store_true", help="measure the parts in this process")
    given = parser.parse_args(arguments)
    given.parts = given.parts.split(",")
    if unknown := [name for name in given.parts if name not in PARTS]:
        parser.error(f"--parts: expected some of {', '.join(PARTS)}, found {', '.join(unknown)}")
    if given.out is None and (given.reduced or given.device == "cpu"):
        parser.error("--out: expected a file, as results of a small run or of a CPU are not those of a GPU")
    given.out = given.out or RESULTS
    return given


def about_machine(rows: PartRows, scale: Scale) -> None:
    """Say what all ratios were measured on."""
    memory = torch.cuda.mem_get_info(scale.device)[1] if scale.device.startswith("cuda") else 0
    rows.note(
        "machine",
        device=scale.device_name,
        memory_gb=round(memory / 1e9, 1),
        cores=os.cpu_count(),
        python=platform.python_version(),
        torch=torch.__version__,
        reduced=scale.reduced,
    )


def done_in_time(name: str, scale: Scale, out: Path) -> bool:
    """Measure a part in a process of its own; where that fails or takes too long, a row says so."""
    write_part(out, name, [])
    called = [sys.executable, __file__, "--within", "--parts", name, "--device", scale.device, "--out", str(out)]
    fault = fault_of([*called, *(["--reduced"] if scale.reduced else [])], limit_s=PARTS[name].limit_s(scale))
    if fault:
        rows = [row for row in read_rows(out) if row["part"] == name]
        write_part(out, name, [*rows, {"part": name, "what": "the part ended early", "fault": fault, "holds": False}])
        print(f"{name}: {fault}", file=sys.stderr)
    return not fault


def fault_of(called: Sequence[str], *, limit_s: float) -> str:
    """Run a command that says its faults on stderr; returns the last line of them, or nothing where it went well."""
    with tempfile.TemporaryFile("w+") as said:
        process = subprocess.Popen(called, stderr=said, start_new_session=True)
        try:
            status = process.wait(timeout=limit_s)
        except subprocess.TimeoutExpired:
            return f"it took more than {limit_s / 60:g} minutes"
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)  # and what it has started
            process.wait()
        said.seek(0)
        lines = [line for line in said.read().splitlines() if line.strip()]
    if status == 0:
        return ""
    print("\n".join(lines[-SHOWN_LINES:]), file=sys.stderr)
    return f"exit code {status}: {lines[-1] if lines else 'nothing was said'}"


def told(rows: Sequence[Row], out: Path) -> None:
    """Say how many goals are met, and which are not."""
    compared = [row for row in rows if "holds" in row]
    missed = [row for row in compared if not row["holds"]]
    print(f"{len(compared) - len(missed)} of {len(compared)} rows hold")
    for row in missed:
        print(f"  {row['part']}: {row['what']}: {row.get('fault') or row['ratio']}")
    print(f"written: {out}")


if __name__ == "__main__":
    sys.exit(main())

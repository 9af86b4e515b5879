"""One training by two processes is that by one: losses, weights, metrics; also stopped, and with one of them lost.

All of it runs on the CPU, over gloo, as `torchrun` starts it.
"""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import torch

from cache.store import Store
from tests.train.learning.together import STEPS
from train.learning.checkpoint import CHECKPOINT
from train.places import WEIGHTS

ROOT = Path(__file__).resolve().parents[3]
TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
ENVIRONMENT = {**os.environ, "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
PROGRAM = "tests.train.learning.together"


FIT = (
    "-m", "train", "fit", "--backbone=timm:test_convnext", "--fold=0", "--device=cpu", "--name=t",
    "--set=data.panel=20", "--set=optim.epochs=4", "--set=optim.batch_size=32", "--set=model.width=32",
    "--set=compute.checkpoint_minutes=0", "--set=validation.share=0.5", "--set=validation.few=none",
    "--set=finetune.epochs=3", "--set=finetune.batch_size=32",
)  # fmt: skip


def run(command: Sequence[object]) -> None:
    done = subprocess.run([*map(str, command)], env=ENVIRONMENT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    "settings",
    [
        ("optim.batch_size=63", "optim.name=sgd", "optim.lr=1e-2"),
        pytest.param(
            ("compute.micro_batch=10", "model.dropout=0.2", "halo=1", "optim.ema=0.5"), marks=pytest.mark.slow
        ),
        pytest.param(("encoder.mode=lora", "loss.pcc_over=bins"), marks=pytest.mark.slow),
    ],
    ids=["odd rows", "gradient cache", "adapters"],
)
def test_two_processes_at_half_the_batch_are_one(small_store: Store, tmp_path: Path, settings: tuple[str, ...]) -> None:
    made: dict[str, list[dict[str, Any]]] = {}
    for name, launcher in {"one": [sys.executable], "two": TORCHRUN}.items():
        (tmp_path / name).mkdir()
        run([*launcher, "-m", PROGRAM, small_store.root, tmp_path / name, *settings])
        made[name] = [torch.load(path) for path in sorted((tmp_path / name).glob("rank-*.pt"))]
    (one,), two = made["one"], made["two"]
    assert len(two) == 2
    assert len(one["losses"]) == STEPS
    for rank in two:
        assert [shared for _, shared in rank["encoded"]] == [-(-rows // 2) for rows, _ in one["encoded"]]
        assert rank["losses"] == pytest.approx(one["losses"], abs=1e-9)
        for name, value in one["weights"].items():
            torch.testing.assert_close(rank["weights"][name], value, rtol=1e-6, atol=1e-9, msg=name)
    for name, value in two[0]["weights"].items():
        torch.testing.assert_close(two[1]["weights"][name], value, rtol=0, atol=0, msg=name)


def fit(store: Store, runs: Path) -> list[str]:
    return [*FIT, f"--store={store.root}", f"--runs={runs}", f"--set=split.file={runs / 'folds.json'}"]


def metrics(runs: Path) -> pl.DataFrame:
    return pl.read_parquet(runs / "t" / "genes.parquet")


def trained_weights(runs: Path) -> bytes:
    (path,) = runs.glob(f"cells/magnet-*/{WEIGHTS}")
    return path.read_bytes()


@pytest.fixture(scope="module")
def whole(small_store: Store, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A fit by two processes that nothing stopped."""
    runs = tmp_path_factory.mktemp("whole")
    run([*TORCHRUN, *fit(small_store, runs)])
    return runs


@contextmanager
def under_way(command: Sequence[str], runs: Path) -> Iterator[subprocess.Popen[str]]:
    """Yield the launcher, once its processes have taken some steps."""
    with subprocess.Popen(command, env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as it:
        try:
            while len([*runs.glob(f"cells/magnet-*/{CHECKPOINT}")]) == 0:
                assert it.poll() is None, it.communicate()[0]
                time.sleep(0.02)
            yield it
        finally:
            it.terminate()


def process_of(launcher: subprocess.Popen[str], rank: int) -> int:
    """Process id of a rank, by its environment."""
    children = Path(f"/proc/{launcher.pid}/task/{launcher.pid}/children").read_text().split()
    return next(int(child) for child in children if f"\0RANK={rank}\0" in Path(f"/proc/{child}/environ").read_text())


@pytest.mark.slow
def test_a_fit_by_two_processes_is_that_of_one_and_the_first_alone_writes(
    small_store: Store, tmp_path: Path, whole: Path
) -> None:
    run([sys.executable, *fit(small_store, tmp_path)])
    one, two = metrics(tmp_path), metrics(whole)
    same = [name for name, kind in one.schema.items() if not kind.is_float()]
    assert one.select(same).equals(two.select(same))
    ours = pl.col("system") == "MagNet"
    for name in ("mse", "pcc"):
        means = [table.filter(ours)[name].mean() for table in (one, two)]
        assert means[1] == pytest.approx(means[0], rel=0.05), name  # what AdamW makes of rounding
    assert one.filter(~ours).equals(two.filter(~ours))
    (cell,) = whole.glob("cells/magnet-*")
    assert sorted(path.name for path in cell.iterdir()) == sorted(
        path.name for path in next(tmp_path.glob("cells/magnet-*")).iterdir()
    )


@pytest.mark.slow
def test_asked_to_stop_all_end_after_the_same_step_and_go_on_to_the_same_weights(
    small_store: Store, tmp_path: Path, whole: Path
) -> None:
    command = [*TORCHRUN, *fit(small_store, tmp_path)]
    with under_way(command, tmp_path) as launcher:
        os.kill(process_of(launcher, 1), signal.SIGINT)  # one of them alone
        said, _ = launcher.communicate(timeout=120)
    assert launcher.returncode != 0
    assert said.count("interrupted; run it again to go on") == 2
    assert "expected to hear" not in said
    run(command)
    assert trained_weights(tmp_path) == trained_weights(whole)


@pytest.mark.slow
def test_a_process_that_is_lost_ends_the_others_with_a_line_and_any_number_goes_on(
    small_store: Store, tmp_path: Path, whole: Path
) -> None:
    with under_way([*TORCHRUN, *fit(small_store, tmp_path)], tmp_path) as launcher:
        os.kill(process_of(launcher, 1), signal.SIGKILL)
        said, _ = launcher.communicate(timeout=120)
    assert launcher.returncode != 0
    line = "error: process 1 of 2: expected to hear from all others, found that one has ended; look above"
    assert line in said or "interrupted; run it again" in said  # whichever reaches it first, the loss or the launcher
    alone = subprocess.run(
        [sys.executable, *fit(small_store, tmp_path)], env=ENVIRONMENT, capture_output=True, text=True, check=False
    )
    assert alone.returncode == 0, alone.stderr
    assert "going on after step" in alone.stderr
    assert metrics(tmp_path)["mse"].mean() == pytest.approx(metrics(whole)["mse"].mean(), rel=0.05)


@pytest.mark.slow
def test_launched_with_restarts_a_lost_process_costs_nothing(small_store: Store, tmp_path: Path, whole: Path) -> None:
    command = [*TORCHRUN, "--max-restarts=1", *fit(small_store, tmp_path)]
    with under_way(command, tmp_path) as launcher:
        os.kill(process_of(launcher, 0), signal.SIGKILL)
        said, _ = launcher.communicate(timeout=240)
    assert launcher.returncode == 0, said
    assert "going on after step" in said
    assert trained_weights(tmp_path) == trained_weights(whole)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("options", "line"),
    [
        (["fit", "--bins=frozen"], "expected --bins finetuned: the processes share the encoder's work"),
        (["cv"], "expected train fit, one training that processes share"),
    ],
)
def test_what_processes_cannot_share_is_refused(options: list[str], line: str) -> None:
    done = subprocess.run(
        [*TORCHRUN, "-m", "train", *options], env=ENVIRONMENT, capture_output=True, text=True, check=False
    )
    assert done.returncode != 0
    assert line in done.stderr

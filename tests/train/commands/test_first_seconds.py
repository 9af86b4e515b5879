"""A mistake is told of in one line before anything that takes long is imported."""

import json
from pathlib import Path

import pytest

from cache.store import Store
from tests.first_seconds import tell

OF_STORE = " --store {store} --runs {runs} --backbone timm:test_convnext"
FIT = "train fit" + OF_STORE
STUDY = "train study baselines" + OF_STORE


@pytest.mark.parametrize(
    ("command", "said"),
    [
        (f"{FIT} --fold 9", "--fold: expected 0 to 2 (3 folds in"),
        (f"{FIT} --target 9", "--target: data.target: expected 8, 16 or 55"),
        (f"{FIT} --set optim.lrr=1", "--set: optim: expected a known setting, found 'lrr'; did you mean lr"),
        (f"{FIT} --set optim.lr=-1", "--set: optim.lr: expected a positive number, found -1"),
        (f"{FIT} --recipe {{runs}}/none.toml", "--recipe: expected a TOML file, found no file"),
        (f"{FIT} --bins frozen --set encoder.mode=lora", "--bins: expected --bins or encoder.mode, found both"),
        (f"{FIT} --name ../x", "--name: expected a folder below --runs"),
        ("train fit --store {runs}/none", "none: expected a store"),
        ("train fit --store {store} --runs {runs} --backbone uni", "; run 'extract run --backbone uni', or choose"),
        ("train cv --store {store} --runs {runs} --folds 9", "--fold: expected 0 to 2"),
        ("train study baselines --systems magnet,x --store {store}", "--systems: expected a known name, found 'x'"),
        ("train study blocks --protocol x", "--protocol: expected a known name, found 'x'"),
        (
            f"{STUDY} --genes NOTAGENE",
            "--genes: expected names of genes that a slide measures, found 'NOTAGENE'; correct",
        ),
        ("train cv --genes SYN,SYNx" + OF_STORE, "--genes: expected names of genes that a slide measures, found 'SYN'"),
        ("train study backbones" + OF_STORE, "expected features of resnet50, found"),
        (
            "train study blocks --backbone uni --store {store} --runs {runs}",
            "or choose a backbone that is there: timm:t",
        ),
        ("train sweep {runs}/none.toml --trials 2", "expected a TOML file, found no file"),
        ("train predict {runs}/none --slide S1", "none: expected the folder of a run, found no folder"),
        ("train predict {runs}/run --slide S9 --store {store}", "slide: expected a known name, found 'S9'"),
        ("train predict {runs}/run --slide S1 --genes X --store {store}", "--genes: expected genes of the run's panel"),
        ("train report {runs}/none", "none: expected the folder of a result, found no folder"),
        ("train figure maps {runs}/none", "none: expected the folder of a result, found no folder"),
        ("train figure table {runs} --format gif", "--format: expected a known name, found 'gif'; choose one of: pdf,"),
        ("train figure curves {runs} --genes X", "--genes: expected it with 'train figure maps', found curves"),
    ],
)
def test_a_mistake_is_told_of_at_once(small_store: Store, tmp_path: Path, command: str, said: str) -> None:
    run = tmp_path / "runs/run/run.json"
    run.parent.mkdir(parents=True)
    run.write_text(json.dumps({"panel": {"id": ["G1"], "name": ["G1"]}, "config": {"data": {"store": "gone"}}}))
    told = tell(command.format(store=small_store.root, runs=tmp_path / "runs"))
    lines = [line for line in told.said.splitlines() if not line.startswith("3 patients only")]
    assert said in lines[-1]
    assert len(lines) == 1
    assert (told.code, told.slow) == (1, "[]")
    assert told.megabytes < 300
    assert [path.name for path in (tmp_path / "runs").iterdir() if path.is_dir()] == ["run"]


def test_the_help_of_a_sweep_shows_its_brackets_and_defaults() -> None:
    import subprocess
    import sys

    shown = subprocess.run(
        [sys.executable, "-m", "train", "sweep", "--help"], capture_output=True, text=True, check=True
    ).stdout
    assert "[space]" in shown
    assert "[default: 1]" in shown.replace("\n", " ") or "default: 1" in shown

"""A sweep that is quick to run, and a study without any training."""

from pathlib import Path

from cache.store import Store
from train.commands.options import run_options
from train.sweep.config import Sweep, read_sweep

SPACE = """
"optim.lr" = {low = 1e-3, high = 1e-2, log = true}
"model.rounds" = {low = 1, high = 2}
"""


def sweep_of(
    store: Store, runs: Path, *, space: str = SPACE, search: str = "", settings: str = "", epochs: int = 2
) -> Sweep:
    """Few epochs of a model of width 32 on frozen features."""
    path = runs.parent / f"{runs.name}.toml"
    text = f"""
[settings]
data.panel = 20
optim = {{name = "adamw", epochs = {epochs}, batch_size = 64}}
{"" if "model.width" in space else "model.width = 32"}
{settings}
[space]
{space}
[search]
{"" if "pruner" in search else 'pruner = "none"'}
startup = 3
{search}
"""
    path.write_text(text)
    options = run_options(store=store.root, backbone="timm:test_convnext", runs=runs, device="cpu")
    return read_sweep(path, options)

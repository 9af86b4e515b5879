"""A run of before, without a checksum, may state any size: it is one line, before layers are made."""

import json
import time
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import save_file

from magnet_core.errors import MagnetError
from magnet_core.model import MagNet
from train.learning.trained_run import load_run
from train.settings.fit import load_config

CONTEXTS = {"spot": 8, "region": 8}


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A whole run of the smallest model, described without a checksum."""
    config = load_config(None, ["encoder.mode=frozen", "model.width=8", "model.heads=2"])
    model = MagNet(config.model, fine_dim=8, context_dims=CONTEXTS, num_genes=2)
    save_file({f"model.{name}": value for name, value in model.state_dict().items()}, tmp_path / "model.safetensors")
    described = {"config": config.plain(), "backbone": "timm:test_resnet", "fine_dim": 8, "context_dims": CONTEXTS,
                 "panel": {"id": ["G1", "G2"], "name": ["G1", "G2"]}}  # fmt: skip
    (tmp_path / "run.json").write_text(json.dumps(described))
    return tmp_path


def describe(run: Path, **changes: Any) -> None:
    described = json.loads((run / "run.json").read_text())
    model = changes.pop("model", {})
    described["config"]["model"] |= model
    (run / "run.json").write_text(json.dumps(described | changes))


def test_a_run_of_before_without_a_checksum_is_read(run: Path) -> None:
    assert load_run(run).predictor.model.num_genes == 2


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"model": {"rounds": 10**12}}, "model.rounds: expected 1 to 256, found 1000000000000"),
        ({"model": {"width": 10**9}}, "model.width: expected 1 to 65,536"),
        ({"model": {"heads": 10**9}}, "model.heads: expected 1 to 65,536"),
        ({"model": {"transformer_layers": 10**9}}, "model.transformer_layers: expected 1 to 256"),
        ({"model": {"rounds": 256}}, "weights of fewer layers than its description states: no model.decode_fine.graph"),
        ({"model": {"transformer_layers": 256}}, "weights of fewer layers"),
        ({"model": {"width": 65_536}}, "weights of other sizes"),
        ({"fine_dim": 10**30}, "expected a run whose parts fit together"),
        ({"fine_dim": 10**9}, "weights of other sizes"),
        ({"context_dims": {f"level {number}": 8 for number in range(20_000)}}, "weights of fewer layers"),
    ],
)
def test_absurd_sizes_are_one_line_at_once(changes: dict[str, Any], says: str, run: Path) -> None:
    describe(run, **changes)
    started = time.process_time()
    with pytest.raises(MagnetError, match=says):
        load_run(run)
    assert time.process_time() - started < 2

import signal
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from cache.store import Store
from magnet_core.errors import MagnetError
from tests.train.baselines.setting import training_of
from train.baselines import learning
from train.baselines.base import Setting
from train.baselines.bleep import BLEEPConfig
from train.baselines.egn import EGNConfig
from train.baselines.his2st import His2STConfig
from train.baselines.histogene import HisToGeneConfig
from train.baselines.learning import learn, seeded
from train.baselines.st_net import STNetConfig
from train.baselines.table import RIVALS, RivalsConfig, build_rival
from train.baselines.triplex import TriplexConfig
from train.config import ComputeConfig
from train.fold import FoldSides
from train.unfinished import CHECKPOINT

SIZES: dict[str, Any] = {"width": 16, "heads": 2, "mlp": 16}
SMALL = RivalsConfig(
    st_net=STNetConfig(epochs=3, lr=1e-5, batch_size=100),
    egn=EGNConfig(epochs=2, depth=2, batch_size=200, token_grid=2, **SIZES),
    histogene=HisToGeneConfig(epochs=3, depth=1, window=64, pixel_side=14, **SIZES),
    bleep=BLEEPConfig(epochs=3, width=16, batch_size=100),
    his2st=His2STConfig(epochs=3, depth=1, window=64, views=1, pixel_side=28, sage_layers=1, **SIZES),
    triplex=TriplexConfig(epochs=2, neighbour_layers=1, global_layers=1, batch_size=200, step_epochs=1, **SIZES),
)
EVERY_STEP = ComputeConfig(checkpoint_minutes=0.0)


@pytest.fixture
def stops_at(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Let a training be killed after so many checkpoints."""
    write = learning.write_checkpoint

    def stop_after(count: int) -> None:
        written = 0

        def write_and_stop(*args: Any) -> None:
            nonlocal written
            write(*args)
            written += 1
            if written == count:
                raise KeyboardInterrupt

        monkeypatch.setattr(learning, "write_checkpoint", write_and_stop)

    return stop_after


@pytest.mark.parametrize("name", RIVALS)
def test_a_rival_goes_on_as_if_it_had_never_stopped(
    name: str, small_store: Store, tmp_path: Path, stops_at: Callable[[int], None]
):
    assert_goes_on(name, training_of(small_store, tmp_path), tmp_path, stops_at)


def test_an_encoder_that_is_trained_goes_on_too(small_store: Store, tmp_path: Path, stops_at: Callable[[int], None]):
    assert_goes_on("st_net", training_of(small_store, tmp_path, "data.target=55"), tmp_path, stops_at, finetune=True)


def assert_goes_on(
    name: str, sides: FoldSides, folder: Path, stops_at: Callable[[int], None], *, finetune: bool = False
) -> None:
    """Stopped after each of its first three steps, a rival predicts the same numbers as in one go."""
    slide = sides.test_slides[0]
    whole = build_rival(name, SMALL, Setting(finetune=finetune))
    whole.fit(sides.training)
    for _ in range(3):
        stops_at(2)  # the first is written before a step, the second after one
        stopped = build_rival(name, SMALL, Setting(finetune=finetune, compute=EVERY_STEP, folder=folder))
        with pytest.raises(KeyboardInterrupt):
            stopped.fit(sides.training)
    stops_at(10_000)
    torch.rand(3)
    resumed = build_rival(name, SMALL, Setting(finetune=finetune, compute=EVERY_STEP, folder=folder))
    resumed.fit(sides.training)
    np.testing.assert_array_equal(resumed.predict(slide), whole.predict(slide))


def learn_a_line(setting: Setting, at_step: Callable[[int], None] = lambda _: None) -> tuple[nn.Linear, list[float]]:
    """Train one weight for 3 epochs of 4 batches; `at_step` is told of each step before it."""
    steps = 0

    def batches_of(rng: np.random.Generator) -> Sequence[Tensor]:
        return list(torch.from_numpy(rng.normal(size=(4, 5, 1)).astype(np.float32)))

    def loss_of(batch: Tensor) -> Tensor:
        nonlocal steps
        at_step(steps)
        steps += 1
        return (module(batch) - 2 * batch + torch.rand(1)).square().mean()

    with seeded(setting):
        module = nn.Linear(1, 1)
        optimiser = torch.optim.SGD(module.parameters(), lr=0.1)
        history = learn(module, batches_of, loss_of, optimiser=optimiser, epochs=3, setting=setting)
    return module, history


@pytest.mark.parametrize("step", [0, 3, 4, 6, 11])
def test_a_signal_stops_after_the_step_and_leaves_where_to_go_on(step: int, tmp_path: Path):
    whole, history = learn_a_line(Setting())
    with pytest.raises(KeyboardInterrupt):
        learn_a_line(Setting(folder=tmp_path), lambda at: signal.raise_signal(signal.SIGTERM) if at == step else None)
    steps: list[int] = []
    resumed, told = learn_a_line(Setting(folder=tmp_path), steps.append)
    assert len(steps) == 12 - (step + 1)
    assert told == history
    assert torch.equal(resumed.weight, whole.weight)


def test_without_a_folder_a_signal_stops_and_nothing_is_kept(tmp_path: Path):
    with pytest.raises(KeyboardInterrupt):
        learn_a_line(Setting(), lambda _: signal.raise_signal(signal.SIGTERM))
    assert not list(tmp_path.iterdir())


def test_a_damaged_checkpoint_is_told_in_one_line(tmp_path: Path):
    (tmp_path / CHECKPOINT).write_bytes(b"PK half of it")
    with pytest.raises(MagnetError, match=r"checkpoint\.pt: expected a checkpoint, whole, found .*; delete it") as told:
        learn_a_line(Setting(folder=tmp_path))
    assert "\n" not in str(told.value)


def test_a_checkpoint_of_other_parts_is_told_in_one_line(tmp_path: Path):
    other = {"module": nn.Linear(2, 1), "optimiser": torch.optim.SGD([torch.zeros(1)], lr=1.0)}
    learning.write_checkpoint(tmp_path, other, {"course": {}})
    with pytest.raises(MagnetError, match=r"checkpoint\.pt: expected a checkpoint of this training, found") as told:
        learn_a_line(Setting(folder=tmp_path))
    assert "\n" not in str(told.value)

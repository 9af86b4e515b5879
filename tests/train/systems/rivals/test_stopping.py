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
from tests.train.systems.rivals.setting import training_of
from train.data.fold_sides import FoldSides
from train.learning import progress
from train.learning.checkpoint import CHECKPOINT, write_checkpoint
from train.learning.loop import LoopSettings
from train.learning.setting import Setting
from train.settings.fit import ComputeConfig
from train.settings.rivals import (
    BLEEPConfig,
    EGNConfig,
    His2STConfig,
    HisToGeneConfig,
    RivalSettings,
    STNetConfig,
    TriplexConfig,
)
from train.systems.rivals import learning
from train.systems.rivals.learning import learn, seeded
from train.systems.table import SYSTEMS, build_rival, rivals_config

SIZES: dict[str, Any] = {"width": 16, "heads": 2, "mlp": 16}
SMALL = rivals_config(
    st_net=STNetConfig(epochs=3, lr=1e-5, batch_size=100),
    egn=EGNConfig(epochs=2, depth=2, batch_size=200, token_grid=2, **SIZES),
    histogene=HisToGeneConfig(epochs=3, depth=1, window=64, pixel_side=14, **SIZES),
    bleep=BLEEPConfig(epochs=3, width=16, batch_size=100),
    his2st=His2STConfig(epochs=3, depth=1, window=64, views=1, pixel_side=28, sage_layers=1, **SIZES),
    triplex=TriplexConfig(epochs=2, neighbour_layers=1, global_layers=1, batch_size=200, step_epochs=1, **SIZES),
)
IN_EPOCHS = [name for name, row in SYSTEMS.items() if row.settings and issubclass(row.settings, RivalSettings)]
EVERY_STEP = ComputeConfig(checkpoint_minutes=0.0)


@pytest.fixture
def stops_at(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Let a training be killed after so many checkpoints."""
    write = write_checkpoint

    def stop_after(count: int) -> None:
        written = 0

        def write_and_stop(*args: Any, **named: Any) -> None:
            nonlocal written
            write(*args, **named)
            written += 1
            if written == count:
                raise KeyboardInterrupt

        monkeypatch.setattr(progress, "write_checkpoint", write_and_stop)

    return stop_after


@pytest.mark.parametrize(
    "name", [name for name, row in SYSTEMS.items() if row.settings and issubclass(row.settings, RivalSettings)]
)
def test_a_rival_goes_on_as_if_it_had_never_stopped(
    name: str, small_store: Store, tmp_path: Path, stops_at: Callable[[int], None]
) -> None:
    assert_goes_on(name, training_of(small_store, tmp_path), tmp_path, stops_at)


def test_an_encoder_that_is_trained_goes_on_too(
    small_store: Store, tmp_path: Path, stops_at: Callable[[int], None]
) -> None:
    assert_goes_on("st_net", training_of(small_store, tmp_path, "data.target=55"), tmp_path, stops_at, finetune=True)


def assert_goes_on(
    name: str, sides: FoldSides, folder: Path, stops_at: Callable[[int], None], *, finetune: bool = False
) -> None:
    """Stopped after each of its first three steps, a rival predicts the same numbers as in one go."""
    slide = sides.test_slides[0]
    whole = build_rival(name, SMALL, Setting(finetune=finetune))
    whole.fit(sides.training)
    for _ in range(3):
        stops_at(1)  # written after each step
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
        result: Tensor = (module(batch) - 2 * batch + torch.rand(1)).square().mean()
        return result

    with seeded(setting):
        module = nn.Linear(1, 1)
        optimiser = torch.optim.SGD(module.parameters(), lr=0.1)
        done = learn(module, batches_of, loss_of, optimiser=optimiser, course=STNetConfig(epochs=3), setting=setting)
    return module, done.history


def test_a_rival_s_gradient_is_clipped_and_its_weights_are_averaged(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[LoopSettings] = []

    def watched(trainee: object, loop: LoopSettings, **_: object) -> progress.Progress:
        seen.append(loop)
        return progress.Progress()

    monkeypatch.setattr(learning, "train", watched)
    module = nn.Linear(1, 1)
    optimiser = torch.optim.SGD(module.parameters(), lr=0.1)
    for epochs in (None, 2):
        learn(
            module, lambda rng: [], lambda batch: torch.zeros(()), optimiser=optimiser,
            course=STNetConfig(epochs=3, clip_norm=0.5, ema=0.9), setting=Setting(patience=4, epochs=epochs),
        )  # fmt: skip
    assert seen == [LoopSettings(3, 0.5, 0.9, 4), LoopSettings(2, 0.5, 0.9, 4)]


@pytest.mark.parametrize("step", [0, 3, 4, 6, 11])
def test_a_signal_stops_after_the_step_and_leaves_where_to_go_on(step: int, tmp_path: Path) -> None:
    whole, history = learn_a_line(Setting())
    with pytest.raises(KeyboardInterrupt):
        learn_a_line(Setting(folder=tmp_path), lambda at: signal.raise_signal(signal.SIGTERM) if at == step else None)
    steps: list[int] = []
    resumed, told = learn_a_line(Setting(folder=tmp_path), steps.append)
    assert len(steps) == 12 - (step + 1)
    assert told == history
    assert torch.equal(resumed.weight, whole.weight)


def test_without_a_folder_a_signal_stops_and_nothing_is_kept(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        learn_a_line(Setting(), lambda _: signal.raise_signal(signal.SIGTERM))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("content", [b"", b"PK half of it", b"a text file\n", b"\x80\x02}q\x00("])
def test_a_damaged_checkpoint_is_told_in_one_line(content: bytes, tmp_path: Path) -> None:
    (tmp_path / CHECKPOINT).write_bytes(content)
    with pytest.raises(MagnetError, match=r"checkpoint\.pt: expected a checkpoint, whole, found .*; delete it") as told:
        learn_a_line(Setting(folder=tmp_path))
    assert "\n" not in str(told.value)


def test_a_checkpoint_with_one_changed_byte_is_not_gone_on_with(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        learn_a_line(Setting(folder=tmp_path), lambda _: signal.raise_signal(signal.SIGTERM))
    path = tmp_path / CHECKPOINT
    weight = torch.load(path, weights_only=True)["module"]["weight"].numpy().tobytes()
    content = path.read_bytes()
    assert content.count(weight) == 1
    path.write_bytes(content.replace(weight, bytes([weight[0] ^ 1]) + weight[1:]))
    with pytest.raises(MagnetError, match=r"found bytes that do not match its checksum; delete it"):
        learn_a_line(Setting(folder=tmp_path))


@pytest.mark.parametrize("damage", ["module", "progress", "draws"])
def test_a_checkpoint_of_another_program_is_told_in_one_line(damage: str, tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        learn_a_line(Setting(folder=tmp_path), lambda _: signal.raise_signal(signal.SIGTERM))
    values = torch.load(tmp_path / CHECKPOINT, weights_only=True)
    values[damage] = nn.Linear(2, 1).state_dict() if damage == "module" else {"year": 3}
    torch.save(values, tmp_path / CHECKPOINT)
    with pytest.raises(MagnetError, match=r"checkpoint\.pt: expected a checkpoint of this training, found") as told:
        learn_a_line(Setting(folder=tmp_path))
    assert "\n" not in str(told.value)


def test_memory_that_runs_out_is_no_fault_of_the_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def run_out(*_: object) -> None:
        raise torch.OutOfMemoryError

    with pytest.raises(KeyboardInterrupt):
        learn_a_line(Setting(folder=tmp_path), lambda _: signal.raise_signal(signal.SIGTERM))
    monkeypatch.setattr(torch.optim.SGD, "load_state_dict", run_out)
    with pytest.raises(torch.OutOfMemoryError):
        learn_a_line(Setting(folder=tmp_path))


def test_a_signal_in_a_step_that_fails_stops_too() -> None:
    def fail(_: int) -> None:
        signal.raise_signal(signal.SIGTERM)
        raise MagnetError("training", expected="a finite loss", found="nan", remedy="lower its learning rate")

    with pytest.raises(KeyboardInterrupt):
        learn_a_line(Setting(), fail)

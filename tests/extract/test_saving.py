"""A run that ends at any moment loses half a minute of work at most, whatever the encoder's speed.

Time is a clock that only the encoder moves, so many seconds a patch: what is lost is counted in patches.
"""

import random
from pathlib import Path

import numpy as np
import pytest

from cache.reader import ArrayFile
from cache.store import Store
from extract.config import EmbeddingConfig, GeometryConfig, RunConfig
from extract.pace import BATCH_SECONDS, Pace
from extract.pipeline import run
from extract.sinks import FeatureSink
from magnet_core.backbones.encoder import Encoder, Features, build_encoder
from magnet_core.backbones.find import find_backbone
from tests.cache.test_begun import keys

LOST_SECONDS = 30


class SlowEncoder:
    """The time that encoding takes, and what is encoded; the run ends in the batch that passes `ends_at` seconds."""

    def __init__(self, seconds_a_patch: float, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 0.0
        self.ends_at = float("inf")
        self.encoded = 0
        forward, encode = Encoder.forward, FeatureSink._encode

        def slow(encoder: Encoder, patches: object, *arguments: object, **options: object) -> Features:
            self.now += seconds_a_patch * len(patches)  # type: ignore[arg-type]
            return forward(encoder, patches, *arguments, **options)  # type: ignore[arg-type]

        def counted(sink: FeatureSink, batch: np.ndarray) -> dict[str, np.ndarray]:
            if self.now + seconds_a_patch * len(batch) > self.ends_at:
                self.encoded += int((self.ends_at - self.now) / seconds_a_patch)  # as far as it comes
                raise KeyboardInterrupt
            self.encoded += len(batch)
            return encode(sink, batch)

        monkeypatch.setattr(Encoder, "forward", slow)
        monkeypatch.setattr(FeatureSink, "_encode", counted)

    def clock(self) -> float:
        return self.now


def config(samples: Path, store: Path) -> RunConfig:
    return RunConfig(
        samples=samples,
        store=store,
        geometry=GeometryConfig(bins=30, spots=8, window=4, targets=(8, 55), context_hops=0),
        embedding=EmbeddingConfig(backbone="timm:test_convnext", weights="random", token_grid=2),
        slides=("S1",),
    )


@pytest.mark.parametrize("seconds_a_patch", [2.0, 6.0])
def test_a_run_that_ends_again_and_again_loses_half_a_minute_each_time(
    seconds_a_patch: float, small_samples: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoder = SlowEncoder(seconds_a_patch, monkeypatch)
    run(config(small_samples, tmp_path / "whole"), clock=encoder.clock)
    total = encoder.encoded  # patches
    rng, ends = random.Random(0), 0
    encoder.encoded = 0
    while True:
        # Three timings of one patch of each size come before the first batch.
        encoder.ends_at = encoder.now + 9 * seconds_a_patch + rng.uniform(0, 2 * LOST_SECONDS)
        try:
            run(config(small_samples, tmp_path / "ended"), clock=encoder.clock)
            break
        except KeyboardInterrupt:
            ends += 1
    lost = (encoder.encoded - total) * seconds_a_patch
    assert ends > 1
    assert lost <= ends * LOST_SECONDS

    whole, ended = Store(tmp_path / "whole"), Store(tmp_path / "ended")
    for one in sorted(whole.root.rglob("*.lmdb")):
        other = ended.root / one.relative_to(whole.root)
        assert keys(one) == keys(other)
        with ArrayFile(one) as expected, ArrayFile(other) as resumed:
            assert resumed.verify() == []
            for name in expected.names():
                np.testing.assert_array_equal(resumed.read(name), expected.read(name), err_msg=name)


def test_a_run_faster_than_the_savings_writes_the_same_file_as_one_without_any(
    small_samples: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoder = SlowEncoder(0.0, monkeypatch)
    run(config(small_samples, tmp_path / "one"), clock=encoder.clock)
    monkeypatch.setattr(FeatureSink, "save", lambda _: pytest.fail("saved"))
    run(config(small_samples, tmp_path / "other"), clock=encoder.clock)
    for one in (tmp_path / "one").rglob("*.lmdb"):
        assert one.read_bytes() == (tmp_path / "other" / one.relative_to(tmp_path / "one")).read_bytes()


@pytest.mark.parametrize(("seconds_a_patch", "size"), [(0.01, 64), (0.3, 64), (0.4, 8), (2, 8), (3, 1), (100, 1)])
def test_batches_that_would_take_long_are_cut(
    seconds_a_patch: float, size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoder = SlowEncoder(seconds_a_patch, monkeypatch)
    embedding = EmbeddingConfig(backbone="timm:test_convnext", weights="random", token_grid=2)
    pace = Pace(build_encoder(find_backbone("timm:test_convnext"), "random"), embedding, clock=encoder.clock)
    assert pace.batch_size(64, 32, None) == size
    assert size == 1 or size * seconds_a_patch <= BATCH_SECONDS
    timed = encoder.now
    assert pace.batch_size(64, 32, None) == size  # which is not timed again
    assert encoder.now == timed

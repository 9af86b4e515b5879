"""The encoder that a store's features were made with is built anew as the header of the features says."""

from typing import Any

import pytest

from cache.state_digest import state_sha256
from magnet_core.backbones.encoder import build_encoder
from magnet_core.backbones.find import find_backbone
from train.model import build


def test_weights_that_were_pinned_are_asked_for_as_they_were(monkeypatch: pytest.MonkeyPatch) -> None:
    encoder = build_encoder(find_backbone("timm:test_resnet"), "random", seed=3)
    asked: list[tuple[Any, ...]] = []

    def answer(spec: Any, weights: str, *, seed: int, sha256: str | None) -> Any:
        asked.append((spec.pinned_name, weights, seed, sha256))
        return encoder

    monkeypatch.setattr(build, "build_encoder", answer)
    settings = {"weights_sha256": state_sha256(encoder.state_dict())}
    for pins in ({}, {"revision": "v1", "sha256": "0" * 64}):
        weights = {"source": "pretrained", "seed": 0, **pins}
        build.rebuild_encoder({"backbone": "timm:test_resnet", "weights": weights, "settings": settings})
    assert asked == [
        ("timm:test_resnet", "pretrained", 0, None),
        ("timm:test_resnet@v1", "pretrained", 0, "0" * 64),
    ]

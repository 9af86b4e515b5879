import dataclasses
import json
import math
from typing import Any

import pytest
import timm
import torch

from magnet_core.backbones import BACKBONES, BackboneSpec
from magnet_core.backbones.architecture import timm_kwargs
from magnet_core.backbones.encoder import build_encoder
from magnet_core.backbones.find import find_backbone
from magnet_core.errors import MagnetError

PUBLISHED_MILLIONS = {  # of parameters, as the models' papers and pages give them
    "resnet50": 23.5,  # without its classifier
    "resnet18": 11.2,  # without its classifier
    "uni": 303,
    "uni2-h": 681,
    "virchow2": 631,
    "h-optimus-0": 1135,
    "h-optimus-1": 1135,
    "prov-gigapath": 1135,
    "phikon-v2": 303,
    "hibou-l": 304,
    "midnight-12k": 1136,
}


def skeleton(spec: BackboneSpec) -> Any:
    with torch.device("meta"):  # shapes without memory
        return timm.create_model(spec.architecture, pretrained=False, num_classes=0, **timm_kwargs(spec))


@pytest.mark.parametrize("name", BACKBONES)
def test_timm_builds_every_row_as_the_row_says(name: str) -> None:
    spec = BACKBONES[name]
    model = skeleton(spec)
    channels = model.num_features
    assert spec.width == (2 * channels if spec.pooling == "cls+mean" else channels)
    assert spec.prefix_tokens == getattr(model, "num_prefix_tokens", 0)
    if spec.patch_tokens is not None:
        assert spec.patch_tokens == model.patch_embed.num_patches
        assert spec.input_px == model.patch_embed.img_size[0]
    if name in PUBLISHED_MILLIONS:
        millions = sum(parameter.numel() for parameter in model.parameters()) / 1e6
        assert millions == pytest.approx(PUBLISHED_MILLIONS[name], rel=0.005)


TRANSFORMERS = {name: spec.patch_tokens for name, spec in BACKBONES.items() if spec.patch_tokens}


@pytest.mark.parametrize(("name", "patch_tokens"), TRANSFORMERS.items())
def test_a_thin_copy_of_every_transformer_keeps_prefix_tokens_apart(name: str, patch_tokens: int) -> None:
    spec = BACKBONES[name]
    thin = dataclasses.replace(spec, kwargs={**spec.kwargs, "depth": 1, "embed_dim": 24, "num_heads": 2})
    encoder = build_encoder(thin, "random")
    patches = torch.randint(0, 256, (1, 64, 64, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        raw = encoder.model.forward_features(encoder.normalise(patches))
        features = encoder(patches, token_grid=1)
        finest = encoder(patches, token_grid=math.isqrt(patch_tokens))
    assert raw.shape[1] == spec.prefix_tokens + patch_tokens
    torch.testing.assert_close(features.pooled[:, :24], raw[:, 0])
    torch.testing.assert_close(finest.tokens[:, :, -24:], raw[:, spec.prefix_tokens :])


def test_weights_have_a_page_to_ask_at_and_a_licence() -> None:
    for spec in BACKBONES.values():
        assert spec.page.startswith("https://huggingface.co/")
        assert spec.licence != BackboneSpec.licence


def test_settings_tell_specs_apart_and_survive_json() -> None:
    settings = {name: json.dumps(spec.settings, sort_keys=True) for name, spec in BACKBONES.items()}
    alike = {"h-optimus-0", "h-optimus-1"}  # told apart by the sha256 of their weights
    assert settings["h-optimus-0"] == settings["h-optimus-1"]
    assert len(set(settings.values())) == len(settings) - len(alike) + 1
    assert json.loads(settings["hibou-l"])["kwargs"]["act_layer"] == "SiLU"


def test_unknown_names_list_the_near_ones() -> None:
    with pytest.raises(MagnetError, match="found 'reset50'; did you mean resnet50"):
        find_backbone("reset50")
    with pytest.raises(MagnetError, match="a model of timm, found 'resnt18'; did you mean resnet18"):
        find_backbone("timm:resnt18")


def test_a_model_that_timm_cannot_build_is_refused_with_the_reason() -> None:
    with pytest.raises(MagnetError, match=r"conch-v1_5.*attention pooler.*cache import"):
        find_backbone("conch-v1_5")


def test_a_pooling_that_does_not_exist_is_refused() -> None:
    with pytest.raises(MagnetError, match=r"one of model, cls, cls\+mean, avg, found 'max'"):
        BackboneSpec("x", architecture="test_vit", pooling="max")  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["uni", "timm:test_resnet", "hf-hub:org/name"])
def test_a_revision_is_taken_off_the_name(name: str) -> None:
    spec = find_backbone(f"{name}@refs/pr/3")
    assert spec == dataclasses.replace(find_backbone(name), revision="refs/pr/3")
    assert (spec.pinned_name, find_backbone(name).pinned_name) == (f"{name}@refs/pr/3", name)
    assert spec.settings == find_backbone(name).settings


@pytest.mark.parametrize("revision", ["", "../../x", "a b", "a@b", "-x", "x" * 101, "é", "\x1b[2J"])
def test_what_can_be_no_revision_is_refused(revision: str) -> None:
    with pytest.raises(MagnetError, match="expected a branch, a tag or a commit after '@'"):
        find_backbone(f"uni@{revision}")

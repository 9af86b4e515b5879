import dataclasses
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from magnet_core.backbones import BackboneSpec
from magnet_core.backbones.encoder import Encoder, build_encoder, with_class_token
from magnet_core.backbones.find import find_backbone
from magnet_core.backbones.spec import Pooling


def random_patches(count: int = 2, side: int = 112) -> Tensor:
    return torch.randint(0, 256, (count, side, side, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def encoder_of(name: str, seed: int = 0) -> Encoder:
    return build_encoder(find_backbone(name), "random", seed=seed)


@pytest.mark.parametrize("name", ["timm:test_resnet", "timm:test_convnext", "timm:test_mambaout", "timm:test_vit"])
def test_tokens_are_means_over_squares_of_the_models_own_map(name: str) -> None:
    encoder = encoder_of(name)
    with torch.inference_mode():
        features = encoder(random_patches(side=160), token_grid=1)
        raw = encoder.model.forward_features(encoder.normalise(random_patches(side=160)))
        fine = encoder(random_patches(side=160), token_grid=2)
    torch.testing.assert_close(features.tokens[:, 0], features.pooled)
    if raw.ndim == 3:
        side = int((raw.shape[1] - encoder.model.num_prefix_tokens) ** 0.5)
        grid = raw[:, encoder.model.num_prefix_tokens :].unflatten(1, (side, side))
    else:
        grid = raw if raw.shape[-1] == encoder.width else raw.permute(0, 2, 3, 1)
    half = grid.shape[1] // 2
    top_right = grid[:, : grid.shape[1] - half, half:].mean(dim=(1, 2))
    torch.testing.assert_close(fine.tokens[:, 1], top_right)


def test_the_first_token_sees_the_top_left_of_the_patch() -> None:
    encoder = encoder_of("timm:test_convnext")
    dark = random_patches(1)
    bright = dark.clone()
    bright[:, :20, :20] = 255
    with torch.inference_mode():
        change = (encoder(bright).tokens - encoder(dark).tokens).abs().sum(dim=2)[0]
    assert change.argmax() == 0
    assert change[0] > 10 * change[15]


def test_class_and_register_tokens_are_no_patch_tokens() -> None:
    spec = BackboneSpec("reg", architecture="vit_small_patch16_dinov3", kwargs={"img_size": 64, "depth": 1})
    encoder = build_encoder(spec, "random")
    assert encoder.model.num_prefix_tokens > 1
    with torch.inference_mode():
        raw = encoder.model.forward_features(encoder.normalise(random_patches(side=64)))
        tokens = encoder(random_patches(side=64)).tokens
    torch.testing.assert_close(tokens, raw[:, encoder.model.num_prefix_tokens :])


def test_random_weights_are_those_of_the_seed_and_leave_the_global_state_alone() -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    first, again, other = (encoder_of("timm:test_resnet", seed) for seed in (1, 1, 2))
    torch.testing.assert_close(torch.rand(3), expected)
    patches = random_patches()
    torch.testing.assert_close(first(patches).pooled, again(patches).pooled)
    assert not torch.allclose(first(patches).pooled, other(patches).pooled)


def test_batchnorm_keeps_its_statistics_while_its_weights_are_trained() -> None:
    encoder = encoder_of("timm:test_resnet").train()
    before = {name: value.clone() for name, value in encoder.named_buffers()}
    encoder(random_patches()).pooled.sum().backward()
    for name, value in encoder.named_buffers():
        torch.testing.assert_close(value, before[name])
    assert all(parameter.grad is not None for parameter in encoder.parameters())


def tiny_vit(pooling: Pooling, **kwargs: object) -> BackboneSpec:
    sizes = {"img_size": 32, "patch_size": 8, "embed_dim": 12, "depth": 1, "num_heads": 2}
    return BackboneSpec("tiny", architecture="vit_tiny_patch16_224", kwargs={**sizes, **kwargs}, pooling=pooling)


@pytest.mark.parametrize(
    ("pooling", "expected"),
    [
        ("cls", lambda raw: raw[:, 0]),
        ("avg", lambda raw: raw[:, 5:].mean(dim=1)),
        ("cls+mean", lambda raw: torch.cat([raw[:, 0], raw[:, 5:].mean(dim=1)], dim=1)),
        ("model", lambda raw: raw[:, 0]),
    ],
)
def test_the_pooled_feature_follows_the_spec(pooling: Pooling, expected: Callable[[Tensor], Tensor]) -> None:
    encoder = build_encoder(tiny_vit(pooling, reg_tokens=4), "random")
    patches = random_patches(side=32)
    with torch.inference_mode():
        raw = encoder.model.forward_features(encoder.normalise(patches))  # 1 class, 4 register, 16 patch tokens
        features = encoder(patches)
    torch.testing.assert_close(features.pooled, expected(raw))
    assert features.pooled.shape[1] == encoder.width
    assert features.tokens.shape[1:] == encoder.token_shape(4) == (16, 12)
    torch.testing.assert_close(features.tokens, raw[:, 5:])


def test_beside_the_class_token_the_tokens_still_average_to_the_pooled_feature() -> None:
    encoder = build_encoder(tiny_vit("cls+mean", reg_tokens=4), "random")
    with torch.inference_mode():
        features = encoder(random_patches(side=32), token_grid=2)
        single = encoder(random_patches(side=32), token_grid=1)
    assert features.tokens.shape[1:] == encoder.token_shape(2) == (4, 12)
    tokens = with_class_token(features.tokens, features.pooled)
    torch.testing.assert_close(tokens.mean(dim=1), features.pooled)
    torch.testing.assert_close(tokens[:, :, 12:], features.tokens)
    assert with_class_token(tokens, features.pooled) is tokens
    assert single.tokens.shape[1:] == encoder.token_shape(1) == (1, 24)
    torch.testing.assert_close(single.tokens[:, 0], features.pooled)


def test_the_mean_of_the_map_is_what_a_resnet_pools_by_itself() -> None:
    own = build_encoder(BackboneSpec("own", architecture="test_resnet"), "random")
    named = build_encoder(BackboneSpec("named", architecture="test_resnet", pooling="avg"), "random")
    with torch.inference_mode():
        torch.testing.assert_close(own(random_patches()).pooled, named(random_patches()).pooled)


def test_a_region_is_resized_to_the_one_size_that_fixed_position_embeddings_know() -> None:
    encoder = build_encoder(tiny_vit("cls"), "random")
    region = random_patches(side=128)
    assert encoder.spec.input_px == 32
    assert encoder.normalise(region).shape[2:] == (32, 32)
    with torch.inference_mode():
        assert encoder(region).tokens.isfinite().all()


def test_another_input_size_resamples_the_position_embeddings() -> None:
    spec = tiny_vit("cls", dynamic_img_size=True)
    encoder = build_encoder(dataclasses.replace(spec, input_px=64), "random")
    with torch.inference_mode():
        raw = encoder.model.forward_features(encoder.normalise(random_patches(side=128)))
        at_own_size = build_encoder(dataclasses.replace(spec, input_px=32), "random")(random_patches(side=32))
        as_cut = build_encoder(spec, "random")(random_patches(side=32))
    assert raw.shape[1] == 1 + 64
    torch.testing.assert_close(at_own_size.pooled, as_cut.pooled)

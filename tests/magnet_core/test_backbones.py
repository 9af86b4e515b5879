from pathlib import Path

import pytest
import torch
from huggingface_hub.errors import GatedRepoError, LocalEntryNotFoundError
from safetensors.torch import save_file
from torch import Tensor

from magnet_core.backbones import BackboneSpec, Encoder, build_encoder, find_backbone, weights
from magnet_core.errors import MagnetError


def random_patches(count: int = 2, side: int = 112) -> Tensor:
    return torch.randint(0, 256, (count, side, side, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def encoder_of(name: str, seed: int = 0) -> Encoder:
    return build_encoder(find_backbone(name), "random", seed=seed)


@pytest.mark.parametrize("name", ["timm:test_resnet", "timm:test_convnext", "timm:test_mambaout", "timm:test_vit"])
def test_tokens_are_means_over_squares_of_the_models_own_map(name: str):
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


def test_the_first_token_sees_the_top_left_of_the_patch():
    encoder = encoder_of("timm:test_convnext")
    dark = random_patches(1)
    bright = dark.clone()
    bright[:, :20, :20] = 255
    with torch.inference_mode():
        change = (encoder(bright).tokens - encoder(dark).tokens).abs().sum(dim=2)[0]
    assert change.argmax() == 0
    assert change[0] > 10 * change[15]


def test_class_and_register_tokens_are_no_patch_tokens():
    spec = BackboneSpec("reg", architecture="vit_small_patch16_dinov3", kwargs={"img_size": 64, "depth": 1})
    encoder = build_encoder(spec, "random")
    assert encoder.model.num_prefix_tokens > 1
    with torch.inference_mode():
        raw = encoder.model.forward_features(encoder.normalise(random_patches(side=64)))
        tokens = encoder(random_patches(side=64)).tokens
    torch.testing.assert_close(tokens, raw[:, encoder.model.num_prefix_tokens :])


def test_random_weights_are_those_of_the_seed_and_leave_the_global_state_alone():
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    first, again, other = (encoder_of("timm:test_resnet", seed) for seed in (1, 1, 2))
    torch.testing.assert_close(torch.rand(3), expected)
    patches = random_patches()
    torch.testing.assert_close(first(patches).pooled, again(patches).pooled)
    assert not torch.allclose(first(patches).pooled, other(patches).pooled)


def test_batchnorm_keeps_its_statistics_while_its_weights_are_trained():
    encoder = encoder_of("timm:test_resnet").train()
    before = {name: value.clone() for name, value in encoder.named_buffers()}
    encoder(random_patches()).pooled.sum().backward()
    for name, value in encoder.named_buffers():
        torch.testing.assert_close(value, before[name])
    assert all(parameter.grad is not None for parameter in encoder.parameters())


def test_a_checkpoint_file_gives_back_the_same_features(tmp_path: Path):
    spec = find_backbone("timm:test_resnet")
    source = build_encoder(spec, "random", seed=3)
    save_file(source.model.state_dict(), tmp_path / "weights.safetensors")
    torch.save({"state_dict": source.model.state_dict()}, tmp_path / "weights.pth")
    for name in ("weights.safetensors", "weights.pth"):
        loaded = build_encoder(spec, str(tmp_path / name))
        torch.testing.assert_close(loaded(random_patches()).pooled, source(random_patches()).pooled)


def test_a_checkpoint_that_leaves_a_parameter_unset_is_refused(tmp_path: Path):
    state = encoder_of("timm:test_resnet").model.state_dict()
    del state["conv1.0.weight"]
    save_file(state, tmp_path / "part.safetensors")
    with pytest.raises(MagnetError, match=r"1 missing and 0 of another shape, such as 'conv1.0.weight'"):
        build_encoder(find_backbone("timm:test_resnet"), str(tmp_path / "part.safetensors"))
    (tmp_path / "text.safetensors").write_text("not weights")
    with pytest.raises(MagnetError, match=r"text.safetensors: expected a safetensors file"):
        build_encoder(find_backbone("timm:test_resnet"), str(tmp_path / "text.safetensors"))
    with pytest.raises(MagnetError, match="no such file"):
        build_encoder(find_backbone("timm:test_resnet"), str(tmp_path / "absent.pth"))


@pytest.mark.parametrize(
    ("fault", "says"),
    [
        (LocalEntryNotFoundError("offline"), "cannot be reached"),
        (ConnectionResetError("dropped"), "download failed"),
    ],
)
def test_weights_out_of_reach_name_the_two_other_ways(monkeypatch: pytest.MonkeyPatch, fault: Exception, says: str):
    def refuse(*_: object) -> str:
        raise fault

    monkeypatch.setattr(weights, "try_to_load_from_cache", lambda *_: None)
    monkeypatch.setattr(weights, "hf_hub_download", refuse)
    with pytest.raises(MagnetError, match=f"{says}.*--weights PATH.*--weights random"):
        build_encoder(find_backbone("resnet50"), "pretrained")


def test_gated_weights_name_the_page_to_ask_at(monkeypatch: pytest.MonkeyPatch):
    def refuse(*_: object) -> str:
        raise GatedRepoError.__new__(GatedRepoError)

    monkeypatch.setattr(weights, "try_to_load_from_cache", lambda *_: None)
    monkeypatch.setattr(weights, "hf_hub_download", refuse)
    with pytest.raises(MagnetError, match="gated: ask for it at https://huggingface.co/MahmoodLab/UNI"):
        weights.weights_file(find_backbone("uni"), "pretrained")


def test_unknown_names_list_the_near_ones():
    with pytest.raises(MagnetError, match="found 'reset50'; did you mean resnet50"):
        find_backbone("reset50")
    with pytest.raises(MagnetError, match="a model of timm, found 'resnt18'; did you mean resnet18"):
        find_backbone("timm:resnt18")

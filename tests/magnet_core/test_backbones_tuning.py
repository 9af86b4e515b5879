"""Which parameters of an encoder are trained, that nothing else changes, and that adapters fold into the weights."""

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from magnet_core.backbones import BackboneSpec
from magnet_core.backbones.encoder import Encoder, build_encoder
from magnet_core.backbones.find import find_backbone
from magnet_core.backbones.tuning import LowRankLinear, merge, tune
from magnet_core.errors import MagnetError
from magnet_core.settings.tuning import TuningConfig

CONVOLUTIONAL = ["timm:test_resnet", "resnet50"]
WITH_LINEARS = ["timm:test_vit", "timm:test_mambaout", "timm:test_convnext"]
TINY = {"img_size": 32, "patch_size": 8, "embed_dim": 12, "depth": 3, "num_heads": 2}


def random_patches(side: int = 64) -> Tensor:
    return torch.randint(0, 256, (2, side, side, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def encoder_of(name: str) -> Encoder:
    """An encoder without weights at zero, where timm starts the last norm of a residual branch and so hides it."""
    encoder = build_encoder(find_backbone(name), "random").train()
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in encoder.parameters():
            parameter.add_(0.05 * torch.randn(parameter.shape, generator=generator))
    return encoder


def tiny(architecture: str, **kwargs: object) -> Encoder:
    return build_encoder(BackboneSpec("tiny", architecture=architecture, kwargs={**TINY, **kwargs}), "random")


def trained(encoder: Encoder) -> set[str]:
    return {name for name, parameter in encoder.model.named_parameters() if parameter.requires_grad}


def named(encoder: Encoder, *beginnings: str) -> set[str]:
    return {name for name, _ in encoder.model.named_parameters() if name.startswith(beginnings)}


def step(encoder: Encoder) -> None:
    """Take one step of gradient descent on what is trained, away from where it stands."""
    trainable = [parameter for parameter in encoder.parameters() if parameter.requires_grad]
    optimiser = torch.optim.SGD(trainable, lr=0.1)
    found = features_of(encoder)
    (found * torch.randn(found.shape, generator=torch.Generator().manual_seed(2))).sum().backward()
    nn.utils.clip_grad_norm_(trainable, 1.0)
    optimiser.step()
    optimiser.zero_grad()


def features_of(encoder: Encoder) -> Tensor:
    """Pooled feature and tokens, (B, 1 + T, D): what the last norm does shows in one of the two only."""
    features = encoder(random_patches())
    return torch.cat([features.pooled.unsqueeze(1), features.tokens], dim=1)


@torch.no_grad()
def outputs(encoder: Encoder) -> Tensor:
    encoder.eval()
    found = features_of(encoder)
    encoder.train()
    return found


@pytest.mark.parametrize("name", CONVOLUTIONAL + WITH_LINEARS)
@pytest.mark.parametrize(("mode", "share"), [("full", 1.0), ("frozen", 0.0)])
def test_all_or_nothing(name: str, mode: Any, share: float) -> None:
    encoder = encoder_of(name)
    tune(encoder, TuningConfig(mode=mode))
    assert len(trained(encoder)) == share * len(list(encoder.parameters()))


@pytest.mark.parametrize(
    ("name", "last_blocks", "beginnings"),
    [
        ("timm:test_vit", 1, ("blocks.5.", "norm.")),
        ("timm:test_vit", 3, ("blocks.3.", "blocks.4.", "blocks.5.", "norm.")),
        ("timm:test_vit2", 1, ("blocks.7.", "fc_norm.")),
        ("timm:test_resnet", 1, ("layer4.",)),
        ("timm:test_resnet", 3, ("layer2.", "layer3.", "layer4.")),
        ("resnet50", 2, ("layer4.1.", "layer4.2.")),
        ("resnet50", 4, ("layer3.5.", "layer4.")),
        ("timm:test_convnext", 1, ("stages.3.blocks.1.", "head.")),
        ("timm:test_convnext", 2, ("stages.3.", "head.")),
        ("timm:test_mambaout", 1, ("stages.3.", "head.")),
        ("timm:test_efficientnet", 1, ("blocks.4.", "conv_head.", "bn2.")),
    ],
)
def test_last_blocks_and_what_follows(name: str, last_blocks: int, beginnings: tuple[str, ...]) -> None:
    encoder = encoder_of(name)
    tune(encoder, TuningConfig(mode="last", last_blocks=last_blocks))
    assert trained(encoder) == named(encoder, *beginnings)


def test_tokens_and_embeddings_of_the_model_itself_are_no_part_of_its_last_blocks() -> None:
    encoder = tiny("eva02_tiny_patch14_224", num_reg_tokens=2, embed_dim=16)
    tune(encoder, TuningConfig(mode="last", last_blocks=1))
    assert "reg_token" in named(encoder, "reg_token")
    assert trained(encoder) == named(encoder, "blocks.2.", "norm.", "fc_norm.")


@pytest.mark.parametrize("name", WITH_LINEARS)
def test_adapters_stand_on_every_linear_layer_of_the_blocks(name: str) -> None:
    encoder = encoder_of(name)
    linears = {n for n, module in encoder.model.named_modules() if isinstance(module, nn.Linear)}
    tune(encoder, TuningConfig(mode="lora", lora_rank=3))
    assert trained(encoder) == {f"{n}.{part}.weight" for n in linears for part in ("down", "up")}
    ranks = {module.down.out_features for module in encoder.modules() if isinstance(module, LowRankLinear)}
    assert ranks == {3}


@pytest.mark.parametrize("name", CONVOLUTIONAL)
def test_adapters_need_linear_layers(name: str) -> None:
    with pytest.raises(MagnetError, match=r"expected linear layers in its blocks.*set mode=last"):
        tune(encoder_of(name), TuningConfig(mode="lora"))


@pytest.mark.parametrize("mode", ["last", "lora"])
@pytest.mark.parametrize("name", CONVOLUTIONAL + WITH_LINEARS)
def test_an_encoder_starts_unchanged_and_a_step_changes_only_what_is_trained(name: str, mode: Any) -> None:
    if mode == "lora" and name in CONVOLUTIONAL:
        mode = "full"
    encoder = encoder_of(name)
    before = outputs(encoder)
    tune(encoder, TuningConfig(mode=mode, last_blocks=1))
    assert torch.equal(outputs(encoder), before)
    chosen = trained(encoder)
    state = copy.deepcopy(encoder.model.state_dict())
    for _ in range(2):  # after the first step, `up` is no longer zero and `down` gets a gradient too
        step(encoder)
    changed = {key for key, value in encoder.model.state_dict().items() if not torch.equal(value, state[key])}
    unused = "head." if name == "timm:test_mambaout" else "-"  # it widens the features, which are taken before it
    assert changed == {key for key in chosen if not key.startswith(unused)}
    assert not torch.equal(outputs(encoder), before)


@pytest.mark.parametrize("name", ["timm:test_vit", "timm:test_resnet"])
def test_autograd_keeps_nothing_below_the_trained_blocks(name: str) -> None:
    def kept(mode: Any) -> int:
        encoder = encoder_of(name)
        tune(encoder, TuningConfig(mode=mode, last_blocks=1))
        own = {parameter.data_ptr() for parameter in encoder.parameters()}
        saved: dict[int, int] = {}

        def count(tensor: Tensor) -> Tensor:
            if tensor.data_ptr() not in own:
                saved[tensor.data_ptr()] = tensor.numel()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(count, lambda tensor: tensor):
            features = encoder(random_patches(160))
        assert features.pooled.requires_grad == (mode != "frozen")
        return sum(saved.values())

    assert kept("frozen") == 0
    assert kept("last") < 0.35 * kept("full")


@pytest.mark.parametrize("name", WITH_LINEARS)
def test_merged_adapters_give_the_same_outputs_from_an_ordinary_state(name: str) -> None:
    encoder = encoder_of(name)
    ordinary = copy.deepcopy(encoder.state_dict())
    start = outputs(encoder)
    tune(encoder, TuningConfig(mode="lora", lora_rank=4))
    for _ in range(3):
        step(encoder)
    adapted = outputs(encoder)
    merge(encoder)
    assert list(encoder.state_dict()) == list(ordinary)
    assert (adapted - start).abs().max() > 1e-3
    torch.testing.assert_close(outputs(encoder), adapted, atol=1e-5, rtol=1e-5)
    rebuilt = encoder_of(name)
    rebuilt.load_state_dict(encoder.state_dict())
    assert torch.equal(outputs(rebuilt), outputs(encoder))


def test_adapters_reach_layers_whose_weight_is_read_past_forward() -> None:
    encoder = tiny("beit_base_patch16_224")  # F.linear(x, self.qkv.weight, …)
    tune(encoder, TuningConfig(mode="lora"))
    qkv = encoder.model.blocks[0].attn.qkv
    assert isinstance(qkv, LowRankLinear)
    encoder(random_patches(32)).pooled.sum().backward()
    assert qkv.up.weight.grad is not None
    with torch.no_grad():
        qkv.up.weight.normal_()
        adapted = encoder(random_patches(32)).pooled
        merge(encoder)
        torch.testing.assert_close(encoder(random_patches(32)).pooled, adapted, atol=1e-5, rtol=1e-5)


def test_an_encoder_without_adapters_merges_into_itself() -> None:
    encoder = encoder_of("timm:test_resnet")
    before = copy.deepcopy(encoder.state_dict())
    merge(encoder)
    torch.testing.assert_close(encoder.state_dict(), before, rtol=0, atol=0)


def test_tuning_again_replaces_the_choice_but_adapters_are_merged_first() -> None:
    encoder = encoder_of("timm:test_vit")
    everything = trained(encoder)
    tune(encoder, TuningConfig(mode="last"))
    tune(encoder, TuningConfig(mode="lora"))
    for again in (TuningConfig(mode="lora"), TuningConfig(mode="full")):
        with pytest.raises(MagnetError, match=r"expected one without adapters.*merge them first"):
            tune(encoder, again)
    merge(encoder)
    tune(encoder, TuningConfig(mode="full"))
    assert trained(encoder) == everything


def test_a_refused_tuning_leaves_the_encoder_as_it_was() -> None:
    encoder = encoder_of("timm:test_resnet")
    everything = trained(encoder)
    for config in (TuningConfig(mode="lora"), TuningConfig(mode="last", last_blocks=5)):
        with pytest.raises(MagnetError):
            tune(encoder, config)
    assert trained(encoder) == everything


def test_more_blocks_than_there_are_is_an_error_that_says_how_many() -> None:
    with pytest.raises(MagnetError, match="at most its 4 blocks, found 5"):
        tune(encoder_of("timm:test_resnet"), TuningConfig(mode="last", last_blocks=5))


def test_an_architecture_whose_blocks_are_not_named_is_refused() -> None:
    spec = BackboneSpec("poolformer", architecture="poolformerv2_s12")
    encoder = build_encoder(spec, "random")
    with pytest.raises(MagnetError, match=r"whose blocks timm names, found MetaFormer; set mode=full"):
        tune(encoder, TuningConfig(mode="last"))
    tune(encoder, TuningConfig(mode="frozen"))
    assert trained(encoder) == set()


@pytest.mark.parametrize("wrong", [{"mode": "lorra"}, {"last_blocks": 0}, {"lora_rank": -1}], ids=str)
def test_wrong_options_are_refused_where_they_are_built(wrong: dict[str, Any]) -> None:
    with pytest.raises(MagnetError, match=r"encoder\."):
        TuningConfig(**wrong)

import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from timm.layers import SwiGLUPacked
from torch import Tensor, nn

from magnet_core.backbones import BackboneSpec
from magnet_core.backbones.checkpoint import load_weights
from magnet_core.backbones.encoder import build_encoder
from magnet_core.backbones.find import find_backbone
from magnet_core.errors import MagnetError

State = dict[str, Tensor]

RESNET = find_backbone("timm:test_resnet")
SIZES = {"img_size": 32, "patch_size": 8, "embed_dim": 12, "depth": 2, "num_heads": 2, "init_values": 1e-5}


def weights_of(spec: BackboneSpec, seed: int = 3) -> State:
    return {
        key: value.contiguous() for key, value in build_encoder(spec, "random", seed=seed).model.state_dict().items()
    }


def assert_loads(spec: BackboneSpec, path: Path, state: State) -> None:
    loaded = build_encoder(spec, str(path)).model.state_dict()
    assert loaded.keys() == state.keys()
    for key, value in state.items():
        torch.testing.assert_close(loaded[key], value)


def test_safetensors_and_torch_files_give_back_their_weights(tmp_path: Path) -> None:
    state = weights_of(RESNET)
    save_file(state, tmp_path / "weights.safetensors")
    torch.save(state, tmp_path / "weights.pth")
    torch.save(state, tmp_path / "old.bin", _use_new_zipfile_serialization=False)
    for name in ("weights.safetensors", "weights.pth", "old.bin"):
        assert_loads(RESNET, tmp_path / name, state)


@pytest.mark.parametrize(
    "wrap",
    [
        lambda state: {"state_dict": state, "epoch": 7, "optimizer": {"state": {}, "param_groups": [{"lr": 0.1}]}},
        lambda state: {"model": {f"module.{key}": value for key, value in state.items()}},
        lambda state: {
            "teacher": {f"backbone.{key}": value for key, value in state.items()} | {"head.w": torch.ones(1)}
        },
        lambda state: {
            "teacher": {f"module.backbone.{k}": v for k, v in state.items()},
            "student": {"x": torch.ones(1)},
        },
        lambda state: {"fc.weight": torch.ones(2, 2), **state},
    ],
    ids=["state_dict", "model, module.", "teacher, backbone.", "teacher, module.backbone.", "a classifier"],
)
def test_wrapped_and_prefixed_checkpoints_are_unwrapped(
    tmp_path: Path, wrap: Callable[[State], dict[str, object]]
) -> None:
    state = weights_of(RESNET)
    torch.save(wrap(state), tmp_path / "weights.pth")
    assert_loads(RESNET, tmp_path / "weights.pth", state)


def test_a_file_of_two_sets_of_weights_is_refused_by_name(tmp_path: Path) -> None:
    state = weights_of(RESNET)
    torch.save({"model": state, "model_ema": state}, tmp_path / "ema.pth")
    with pytest.raises(MagnetError, match="several sets of weights: model, model_ema"):
        build_encoder(RESNET, str(tmp_path / "ema.pth"))
    both = {f"{who}.{key}": value for who in ("student", "teacher") for key, value in state.items()}
    torch.save(both, tmp_path / "both.pth")
    with pytest.raises(MagnetError, match=r"several, under the prefixes 'student\.', 'teacher\.'"):
        build_encoder(RESNET, str(tmp_path / "both.pth"))


def test_a_checkpoint_is_loaded_whole_or_not_at_all(tmp_path: Path) -> None:
    state = weights_of(RESNET)
    part = {key: value for key, value in state.items() if key != "conv1.0.weight"}
    save_file(part, tmp_path / "part.safetensors")
    with pytest.raises(MagnetError, match=r"1 missing and 0 of another shape, such as 'conv1\.0\.weight'"):
        build_encoder(RESNET, str(tmp_path / "part.safetensors"))
    save_file({**state, "conv1.0.weight": torch.ones(1)}, tmp_path / "other.safetensors")
    with pytest.raises(MagnetError, match="0 missing and 1 of another shape"):
        build_encoder(RESNET, str(tmp_path / "other.safetensors"))


def test_a_deeper_model_is_not_cut_to_the_architectures_depth(tmp_path: Path) -> None:
    shallow = BackboneSpec("vit", architecture="vit_tiny_patch16_224", kwargs=SIZES)
    deep = BackboneSpec("vit", architecture="vit_tiny_patch16_224", kwargs={**SIZES, "depth": 3})
    save_file(weights_of(deep), tmp_path / "deep.safetensors")
    with pytest.raises(MagnetError, match=r"and 14 of blocks it does not have, such as 'blocks\.2\."):
        build_encoder(shallow, str(tmp_path / "deep.safetensors"))


def test_more_blocks_in_one_stage_are_another_architecture_too(tmp_path: Path) -> None:
    state = {"conv1.weight": torch.ones(1), "layer3.5.conv2.weight": torch.ones(1)}
    model = nn.ModuleDict({"layer3": nn.ModuleList([nn.ModuleDict({"conv2": nn.Linear(1, 1)}) for _ in range(2)])})
    with pytest.raises(MagnetError, match=r"and 1 of blocks it does not have, such as 'layer3\.5\.conv2\.weight'"):
        save_and_load(model, {**state, **model.state_dict()}, tmp_path / "deep.safetensors")
    save_and_load(model, {"fc.1.weight": torch.ones(1), **model.state_dict()}, tmp_path / "classifier.safetensors")


def save_and_load(model: nn.Module, state: State, path: Path) -> None:
    save_file(state, path)
    load_weights(model, path, name="small")


class Harmful:
    """An object a checkpoint must not be able to bring to life."""


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ({"state_dict": {"w": torch.ones(1)}, "args": Harmful()}, r"cannot be read as one \(UnpicklingError\)"),
        ({"epoch": 3}, "no tensors under names, nor under state_dict, model"),
        ([torch.ones(1)], "no tensors under names"),
    ],
)
def test_files_that_hold_no_weights_alone_are_refused(tmp_path: Path, content: object, says: str) -> None:
    torch.save(content, tmp_path / "odd.pth")
    with pytest.raises(MagnetError, match=says):
        build_encoder(RESNET, str(tmp_path / "odd.pth"))


@pytest.mark.parametrize("name", ["text.safetensors", "text.pth", "empty.safetensors", "empty.bin"])
def test_a_file_that_is_no_checkpoint_is_named(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("" if "empty" in name else "not weights")
    with pytest.raises(MagnetError, match=rf"{name}: expected a safetensors file"):
        build_encoder(RESNET, str(tmp_path / name))


def test_a_missing_file_is_named_and_a_folder_is_called_one(tmp_path: Path) -> None:
    with pytest.raises(MagnetError, match="found a folder; name the file in it"):
        build_encoder(RESNET, str(tmp_path))
    with pytest.raises(MagnetError, match=r"absent\.pth.*no such file"):
        build_encoder(RESNET, "absent.pth")


def as_transformers(state: State) -> State:
    """The same weights as transformers' Dinov2Model names them."""
    names = {
        "cls_token": "embeddings.cls_token",
        "reg_token": "embeddings.register_tokens",
        "pos_embed": "embeddings.position_embeddings",
        "patch_embed.proj": "embeddings.patch_embeddings.projection",
        "blocks": "encoder.layer",
        "attn.proj": "attention.output.dense",
        "ls1.gamma": "layer_scale1.lambda1",
        "ls2.gamma": "layer_scale2.lambda1",
    }
    renamed: State = {"embeddings.mask_token": torch.zeros(1, 12)}
    for key, value in state.items():
        for ours, theirs in names.items():
            key = re.sub(rf"\b{re.escape(ours)}\b", theirs, key)
        key = re.sub(r"^norm\.", "layernorm.", key)
        if ".attn.qkv." in key:
            for part, rows in zip(("query", "key", "value"), value.chunk(3), strict=True):
                renamed[key.replace("attn.qkv", f"attention.attention.{part}")] = rows.clone()
        else:
            renamed[key] = value
    return renamed


@pytest.mark.parametrize("prefix", ["", "dinov2."])
def test_phikon_v2s_layout_loads(tmp_path: Path, prefix: str) -> None:
    spec = BackboneSpec("dinov2", architecture="vit_large_patch14_dinov2", kwargs=SIZES)
    state = weights_of(spec)
    save_file({prefix + key: value for key, value in as_transformers(state).items()}, tmp_path / "model.safetensors")
    assert_loads(spec, tmp_path / "model.safetensors", state)


def test_hibous_layout_loads_with_registers_and_swiglu(tmp_path: Path) -> None:
    kwargs = {**SIZES, "mlp_layer": SwiGLUPacked, "act_layer": nn.SiLU, "mlp_ratio": 4}
    spec = BackboneSpec("dinov2", architecture="vit_large_patch14_reg4_dinov2", kwargs=kwargs)
    state = weights_of(spec)
    theirs = as_transformers(state)
    class_position = torch.full((1, 1, 12), 0.5)  # transformers keeps a position embedding for the class token
    theirs["embeddings.position_embeddings"] = torch.cat([class_position, state["pos_embed"]], dim=1)
    theirs["embeddings.cls_token"] = state["cls_token"] - class_position
    theirs = {re.sub(r"mlp\.fc1", "mlp.weights_in", key): value for key, value in theirs.items()}
    theirs = {re.sub(r"mlp\.fc2", "mlp.weights_out", key): value for key, value in theirs.items()}
    save_file(theirs, tmp_path / "model.safetensors")
    assert_loads(spec, tmp_path / "model.safetensors", state)


def test_a_block_without_its_keys_is_not_whole(tmp_path: Path) -> None:
    spec = BackboneSpec("dinov2", architecture="vit_large_patch14_dinov2", kwargs=SIZES)
    theirs = as_transformers(weights_of(spec))
    del theirs["encoder.layer.1.attention.attention.key.weight"]
    save_file(theirs, tmp_path / "model.safetensors")
    with pytest.raises(MagnetError, match=r"no 'encoder\.layer\.1\.attention\.attention\.key\.weight'"):
        build_encoder(spec, str(tmp_path / "model.safetensors"))

"""A model laid out to be filled is, once filled, the model that was built in the ordinary way."""

from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import save_file

from magnet_core.backbones import BACKBONES, BackboneSpec, architecture
from magnet_core.backbones.architecture import draw_model, model_to_fill
from magnet_core.backbones.encoder import build_encoder

SWIN = {"img_size": 32, "patch_size": 4, "window_size": 4, "embed_dim": 12, "depths": (1, 1), "num_heads": (2, 2)}
SPECS = [
    *(BackboneSpec(name, architecture=name) for name in timm.list_models("test_*")),
    BackboneSpec("masks", architecture="swin_tiny_patch4_window7_224", kwargs=SWIN),
    BackboneSpec("dinov3", architecture="vit_small_patch16_dinov3", kwargs={"img_size": 64, "depth": 1}),
]


@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: spec.name)
def test_a_filled_model_gives_what_the_ordinary_one_gives(spec: BackboneSpec, tmp_path: Path) -> None:
    ordinary = build_encoder(spec, "random", seed=4)
    state = {key: value.contiguous() for key, value in ordinary.model.state_dict().items()}
    save_file(state, tmp_path / "weights.safetensors")
    filled = build_encoder(spec, str(tmp_path / "weights.safetensors"))
    side = spec.kwargs.get("img_size") or timm.get_pretrained_cfg(spec.architecture).input_size[-1]
    patches = torch.randint(0, 256, (2, side, side, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        expected, found = ordinary(patches), filled(patches)
    assert expected.tokens.isfinite().all()
    torch.testing.assert_close(found.tokens, expected.tokens, rtol=0, atol=0)
    torch.testing.assert_close(found.pooled, expected.pooled, rtol=0, atol=0)
    assert [name for name, value in filled.named_parameters() if not value.requires_grad] == []


@pytest.mark.parametrize("name", [name for name in BACKBONES if name != "resnet18"])
def test_no_weights_are_drawn_for_a_backbone_of_the_table(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(spec: BackboneSpec, *, seed: int) -> None:
        raise AssertionError(f"weights of {spec.name} were drawn")

    monkeypatch.setattr(architecture, "draw_model", refuse)
    model = model_to_fill(BACKBONES[name])
    assert not any(value.is_meta for value in model.state_dict().values())


def test_a_model_with_masks_of_its_own_is_built_in_the_ordinary_way() -> None:
    filled, drawn = model_to_fill(SPECS[-2]), draw_model(SPECS[-2], seed=0)
    own = [name for name, _ in drawn.named_buffers() if name not in drawn.state_dict()]
    assert own
    for name in own:
        torch.testing.assert_close(filled.get_buffer(name), drawn.get_buffer(name))

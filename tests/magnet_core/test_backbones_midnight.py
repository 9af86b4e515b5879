"""midnight-12k: a small file in its layout gives what transformers' Dinov2Model computes, written out here.

The computation is that of Dinov2Model (huggingface/transformers, models/dinov2/modeling_dinov2.py) with
`use_swiglu_ffn`, the feature that of the model's page: the class token beside the mean of the patch tokens.
"""

import dataclasses
import math
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor
from torch.nn import functional as F

from magnet_core.backbones import BACKBONES
from magnet_core.backbones.encoder import build_encoder
from magnet_core.errors import MagnetError

State = dict[str, Tensor]

# B images, T tokens with the class token, D features
WIDTH, DEPTH, HEADS, HIDDEN, PATCH, SIDE = 12, 2, 2, 32, 14, 56
MIDNIGHT = BACKBONES["midnight-12k"]
SMALL = dataclasses.replace(
    MIDNIGHT,
    input_px=SIDE,
    kwargs={
        **MIDNIGHT.kwargs,
        "img_size": SIDE,
        "embed_dim": WIDTH,
        "depth": DEPTH,
        "num_heads": HEADS,
        "mlp_ratio": 2 * HIDDEN / WIDTH + 1e-6,  # as timm counts: gate and value together
    },
)


def small_file(*, laid_for_px: int) -> State:
    """Every tensor of such a file by its name there, drawn from one seed."""
    block = {
        "norm1.weight": (WIDTH,),
        "norm1.bias": (WIDTH,),
        **{f"attention.attention.{part}.weight": (WIDTH, WIDTH) for part in ("query", "key", "value")},
        **{f"attention.attention.{part}.bias": (WIDTH,) for part in ("query", "key", "value")},
        "attention.output.dense.weight": (WIDTH, WIDTH),
        "attention.output.dense.bias": (WIDTH,),
        "layer_scale1.lambda1": (WIDTH,),
        "norm2.weight": (WIDTH,),
        "norm2.bias": (WIDTH,),
        "mlp.weights_in.weight": (2 * HIDDEN, WIDTH),
        "mlp.weights_in.bias": (2 * HIDDEN,),
        "mlp.weights_out.weight": (WIDTH, HIDDEN),
        "mlp.weights_out.bias": (WIDTH,),
        "layer_scale2.lambda1": (WIDTH,),
    }
    shapes = {
        "embeddings.cls_token": (1, 1, WIDTH),
        "embeddings.mask_token": (1, WIDTH),
        "embeddings.position_embeddings": (1, 1 + (laid_for_px // PATCH) ** 2, WIDTH),
        "embeddings.patch_embeddings.projection.weight": (WIDTH, 3, PATCH, PATCH),
        "embeddings.patch_embeddings.projection.bias": (WIDTH,),
        **{f"encoder.layer.{index}.{name}": shape for index in range(DEPTH) for name, shape in block.items()},
        "layernorm.weight": (WIDTH,),
        "layernorm.bias": (WIDTH,),
    }
    assert len(shapes) == 7 + 18 * DEPTH  # the file of 40 blocks has 727
    generator = torch.Generator().manual_seed(5)
    return {name: torch.randn(shape, generator=generator) for name, shape in shapes.items()}


def last_hidden_state(state: State, images: Tensor) -> Tensor:
    """(B, 3, h, w) normalised images to (B, T, D)."""

    def linear(name: str, inputs: Tensor) -> Tensor:
        return inputs @ state[f"{name}.weight"].T + state[f"{name}.bias"]

    def norm(name: str, inputs: Tensor) -> Tensor:
        return F.layer_norm(inputs, (WIDTH,), state[f"{name}.weight"], state[f"{name}.bias"], eps=1e-6)

    projection = "embeddings.patch_embeddings.projection"
    maps = F.conv2d(images, state[f"{projection}.weight"], state[f"{projection}.bias"], stride=PATCH)
    patches = maps.flatten(2).transpose(1, 2)  # (B,D,h,w) -> (B,h*w,D)
    hidden = torch.cat([state["embeddings.cls_token"].expand(len(images), -1, -1), patches], dim=1)
    hidden = hidden + positions(state["embeddings.position_embeddings"], images.shape[-1] // PATCH)
    for index in range(DEPTH):
        block = f"encoder.layer.{index}"
        normed = norm(f"{block}.norm1", hidden)
        query, key, value = (
            linear(f"{block}.attention.attention.{part}", normed).unflatten(2, (HEADS, -1)).transpose(1, 2)
            for part in ("query", "key", "value")
        )  # (B,heads,T,D/heads)
        scores = (query @ key.transpose(2, 3) / math.sqrt(WIDTH / HEADS)).softmax(dim=-1)
        attended = linear(f"{block}.attention.output.dense", (scores @ value).transpose(1, 2).flatten(2))
        hidden = hidden + attended * state[f"{block}.layer_scale1.lambda1"]
        gate, content = linear(f"{block}.mlp.weights_in", norm(f"{block}.norm2", hidden)).chunk(2, dim=-1)
        mixed = linear(f"{block}.mlp.weights_out", F.silu(gate) * content)
        hidden = hidden + mixed * state[f"{block}.layer_scale2.lambda1"]
    return norm("layernorm", hidden)


def positions(embedding: Tensor, side: int) -> Tensor:
    """The class token's position as it is, those of the patches resampled where the square is another."""
    of_class, of_patches = embedding[:, :1], embedding[:, 1:]
    stored = math.isqrt(of_patches.shape[1])
    if stored == side:
        return embedding
    square = of_patches.reshape(1, stored, stored, WIDTH).permute(0, 3, 1, 2)
    square = F.interpolate(square, size=(side, side), mode="bicubic", align_corners=False)
    return torch.cat([of_class, square.permute(0, 2, 3, 1).reshape(1, -1, WIDTH)], dim=1)


@pytest.mark.parametrize("laid_for_px", [SIDE, 7 * PATCH], ids=["laid for its input", "laid for larger images"])
def test_a_file_of_its_layout_gives_the_feature_of_its_page(tmp_path: Path, laid_for_px: int) -> None:
    state = small_file(laid_for_px=laid_for_px)
    save_file(state, tmp_path / "model.safetensors")
    encoder = build_encoder(SMALL, str(tmp_path / "model.safetensors"))
    patches = torch.randint(0, 256, (2, SIDE, SIDE, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    images = (patches.permute(0, 3, 1, 2).float() / 255 - 0.5) / 0.5  # (B,H,W,3) -> (B,3,H,W)
    with torch.inference_mode():
        features = encoder(patches, token_grid=SIDE // PATCH)
        expected = last_hidden_state(state, images)
    of_class, of_patches = expected[:, 0], expected[:, 1:]
    torch.testing.assert_close(features.pooled, torch.cat([of_class, of_patches.mean(dim=1)], dim=1))
    torch.testing.assert_close(features.tokens, of_patches)
    assert features.pooled.std() > 0.1


@pytest.mark.parametrize("number", [3, 18, 49])
def test_positions_that_lie_on_no_square_are_refused(tmp_path: Path, number: int) -> None:
    state = small_file(laid_for_px=SIDE)
    state["embeddings.position_embeddings"] = torch.zeros(1, number, WIDTH)
    save_file(state, tmp_path / "model.safetensors")
    with pytest.raises(MagnetError, match="0 missing and 1 of another shape, such as 'pos_embed'"):
        build_encoder(SMALL, str(tmp_path / "model.safetensors"))


def test_the_row_is_the_models_own() -> None:
    assert (MIDNIGHT.hub_id, MIDNIGHT.licence, MIDNIGHT.width) == ("kaiko-ai/midnight", "MIT", 2 * 1536)
    assert (MIDNIGHT.mean, MIDNIGHT.std, MIDNIGHT.input_px) == ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5), 224)

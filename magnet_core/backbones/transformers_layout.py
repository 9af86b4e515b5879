"""Rename the tensors of a DINOv2 model of transformers as timm names them (phikon-v2, hibou-l, midnight-12k, dinov2-…).

In: a state dict of transformers' Dinov2Model, with or without register tokens. Out: the same for timm's
VisionTransformer: query, key and value in one matrix, in this order; with register tokens, the class token's position
embedding added to the class token, as timm builds such models without one. Position embeddings that were laid for
images of another size are resampled as transformers does it whenever it runs such a model.
"""

import math
import re
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

from magnet_core.errors import MagnetError

_MARK = "embeddings.patch_embeddings.projection.weight"
_QKV = re.compile(r"attention\.attention\.(query|key|value)\.")
_RENAMED = (
    (r"^embeddings\.cls_token$", "cls_token"),
    (r"^embeddings\.register_tokens$", "reg_token"),
    (r"^embeddings\.position_embeddings$", "pos_embed"),
    (r"^embeddings\.patch_embeddings\.projection\.", "patch_embed.proj."),
    (r"^encoder\.layer\.", "blocks."),
    (r"^layernorm\.", "norm."),
    (r"\.attention\.output\.dense\.", ".attn.proj."),
    (r"\.layer_scale([12])\.lambda1$", r".ls\1.gamma"),
    (r"\.mlp\.weights_in\.", ".mlp.fc1."),  # SwiGLU: gate and value, stacked as in timm's SwiGLUPacked
    (r"\.mlp\.weights_out\.", ".mlp.fc2."),
)


def is_transformers_layout(state: Mapping[str, Tensor]) -> bool:
    """Tell whether the names are those of a DINOv2 model of transformers, with or without a prefix."""
    return any(key.endswith(_MARK) for key in state)


def to_timm_layout(state: Mapping[str, Tensor], *, path: Path, positions: int | None = None) -> dict[str, Tensor]:
    """Return the encoder's tensors under timm's names; the mask token of the pre-training and any head are left out.

    `positions` is how many position embeddings the model has: a square of the file's is brought to that of the model.
    Raises MagnetError when a block lacks its query, key or value.
    """
    prefix = next(key for key in state if key.endswith(_MARK)).removesuffix(_MARK)
    own = {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}
    renamed = {_renamed(key): value for key, value in own.items() if not _QKV.search(key)}
    renamed.pop("embeddings.mask_token", None)
    for key in own:
        if ".query." in key:
            parts = [key.replace(".query.", f".{part}.") for part in ("query", "key", "value")]
            absent = [part for part in parts if part not in own]
            if absent:
                raise MagnetError(
                    path,
                    expected="query, key and value of every block",
                    found=f"no '{absent[0]}'",
                    remedy="get the file again: it is not whole",
                )
            renamed[_renamed(_QKV.sub("attn.qkv.", key))] = torch.cat([own[part] for part in parts])
    if "reg_token" in renamed and {"cls_token", "pos_embed"} <= renamed.keys():
        renamed["cls_token"] = renamed["cls_token"] + renamed["pos_embed"][:, :1]
        renamed["pos_embed"] = renamed["pos_embed"][:, 1:]
    if "pos_embed" in renamed and positions is not None:
        before = 0 if "reg_token" in renamed else 1  # that of the class token, which has no place in the square
        renamed["pos_embed"] = _resampled(renamed["pos_embed"], positions, prefix=before)
    return renamed


def _resampled(embedding: Tensor, positions: int, *, prefix: int) -> Tensor:
    """Bring (1, prefix + g·g, D) to (1, positions, D), bicubic; what is no square is left for the caller to refuse."""
    stored, wanted = (math.isqrt(max(number - prefix, 0)) for number in (embedding.shape[1], positions))
    if stored == wanted or prefix + stored**2 != embedding.shape[1] or prefix + wanted**2 != positions:
        return embedding
    square = embedding[:, prefix:].float().transpose(1, 2).unflatten(2, (stored, stored))  # (1,g*g,D) -> (1,D,g,g)
    square = F.interpolate(square, size=(wanted, wanted), mode="bicubic", align_corners=False)
    return torch.cat([embedding[:, :prefix], square.flatten(2).transpose(1, 2).to(embedding.dtype)], dim=1)


def _renamed(key: str) -> str:
    for pattern, name in _RENAMED:
        key = re.sub(pattern, name, key)
    return key

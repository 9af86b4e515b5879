"""Rename the tensors of a DINOv2 model of transformers as timm names them (phikon-v2, hibou-l, dinov2-…).

In: a state dict of transformers' Dinov2Model, with or without register tokens. Out: the same for timm's
VisionTransformer: query, key and value in one matrix, in this order; with register tokens, the class token's position
embedding added to the class token, as timm builds such models without one.
"""

import re
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

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


def to_timm_layout(state: Mapping[str, Tensor], *, path: Path) -> dict[str, Tensor]:
    """Return the encoder's tensors under timm's names; the mask token of the pre-training and any head are left out.

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
    return renamed


def _renamed(key: str) -> str:
    for pattern, name in _RENAMED:
        key = re.sub(pattern, name, key)
    return key

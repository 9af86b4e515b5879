"""From uint8 patches to features: one wrapper for every timm model.

In: patches (B, H, W, 3) uint8. Out: pooled (B, D) and tokens (B, T, D), where T = token_grid² squares of the patch in
row-major order, averaged from the model's own feature map, and T = 1 (the pooled feature) for token_grid 1.
"""

import math
from dataclasses import dataclass
from typing import cast

import timm
import torch
from timm.data import resolve_model_data_config
from torch import Tensor, nn
from torch.nn import functional as F

from magnet_core.backbones.spec import BackboneSpec
from magnet_core.backbones.weights import hub_errors, load_weights, weights_file

# B patches, T tokens, D features; h, w: the model's own feature map


@dataclass(frozen=True)
class Features:
    """Raw features of B patches: pooled (B, D), tokens (B, T, D)."""

    pooled: Tensor
    tokens: Tensor


class Encoder(nn.Module):
    """A timm model that takes uint8 patches and gives pooled and token features.

    BatchNorm layers keep their running statistics in training mode too: a batch is a few windows of one slide, and
    its statistics are not those of the data.
    """

    def __init__(self, model: nn.Module, spec: BackboneSpec) -> None:
        super().__init__()
        config = resolve_model_data_config(model)
        self.model = model.to(memory_format=torch.channels_last)  # as patches arrive
        self.spec = spec
        self.mean: Tensor
        self.std: Tensor
        self.register_buffer("mean", torch.tensor(spec.mean or config["mean"]).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(spec.std or config["std"]).view(1, 3, 1, 1), persistent=False)

    @property
    def width(self) -> int:
        """Number of features D."""
        return cast(int, self.model.num_features)

    def train(self, mode: bool = True) -> "Encoder":
        """Switch to training mode, except for the BatchNorm statistics."""
        super().train(mode)
        for module in self.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                module.eval()
        return self

    def forward(self, patches: Tensor, token_grid: int = 4) -> Features:
        """Encode (B, H, W, 3) uint8 patches."""
        raw = self.model.forward_features(self.normalise(patches))  # type: ignore[operator]
        feature_map, pooled = self._map_and_pooled(raw)
        if token_grid == 1:
            return Features(pooled, pooled.unsqueeze(1))
        tokens = F.adaptive_avg_pool2d(feature_map, token_grid)  # (B,D,h,w) -> (B,D,g,g)
        return Features(pooled, tokens.flatten(2).transpose(1, 2))  # (B,D,g,g) -> (B,T,D)

    def normalise(self, patches: Tensor) -> Tensor:
        """Return (B, 3, h, w) normalised float images of the size the model takes."""
        images = patches.permute(0, 3, 1, 2).to(self.mean.dtype, copy=True)  # (B,H,W,3) -> (B,3,H,W)
        if self.spec.input_px and images.shape[-1] != self.spec.input_px:
            size = (self.spec.input_px, self.spec.input_px)
            images = F.interpolate(images, size=size, mode="bilinear", antialias=True, align_corners=False)
        return images.sub_(255 * self.mean).div_(255 * self.std)

    def _map_and_pooled(self, raw: Tensor) -> tuple[Tensor, Tensor]:
        """Return the feature map (B, D, h, w) of patch tokens, and the pooled feature (B, D) as the model makes it.

        A model whose head widens its features (MobileNet) is pooled before that head, so that both have one width.
        """
        own_head = getattr(self.model, "head_hidden_size", self.width) == self.width
        pooled = self.model.forward_head(raw, pre_logits=True) if own_head else None  # type: ignore[operator]
        if raw.ndim == 3:  # (B, prefix + h*w, D): class and register tokens are no patch tokens
            patch_tokens = raw[:, getattr(self.model, "num_prefix_tokens", 0) :]
            side = math.isqrt(patch_tokens.shape[1])
            feature_map = patch_tokens.transpose(1, 2).unflatten(2, (side, side))  # (B,h*w,D) -> (B,D,h,w)
        else:
            feature_map = raw if raw.shape[1] == self.width else raw.permute(0, 3, 1, 2)  # (B,h,w,D) -> (B,D,h,w)
        return feature_map, feature_map.mean(dim=(2, 3)) if pooled is None else pooled


def build_encoder(spec: BackboneSpec, weights: str = "pretrained", *, seed: int = 0) -> Encoder:
    """Build a backbone with `pretrained`, `random` (drawn from `seed`) or file weights, in eval mode.

    Raises MagnetError when weights cannot be had, cannot be read, or belong to another architecture.
    """
    path = weights_file(spec, weights)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        with hub_errors(spec):  # `hf-hub:` architectures are described there
            model = timm.create_model(spec.architecture, pretrained=False, num_classes=0, **spec.kwargs)
    if path is not None:
        load_weights(model, path, name=spec.name)
    return Encoder(model, spec).eval()

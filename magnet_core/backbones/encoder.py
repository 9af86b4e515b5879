"""From uint8 patches to features: one wrapper for every timm model.

In: patches (B, H, W, 3) uint8. Out: pooled (B, D) and tokens (B, T, C), where T = token_grid² squares of the patch in
row-major order, averaged from the model's own feature map, and T = 1 (the pooled feature) for token_grid 1. Where it
is asked for, what the row's own square shows, see `own_square`. How the pooled feature is made is the spec's `pooling`;
for `cls+mean` it is the class token beside the mean, and so twice as wide as the tokens, which do not repeat the class
token: `with_class_token` puts it beside each of them.
"""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from timm.data import resolve_model_data_config
from torch import Tensor, nn
from torch.nn import functional as F

from magnet_core.backbones.architecture import draw_model, model_to_fill
from magnet_core.backbones.checkpoint import load_weights
from magnet_core.backbones.hub import require_timm_config
from magnet_core.backbones.own_square import LAST, OwnSquare, channels_of, mean_and_spread, stages_of
from magnet_core.backbones.spec import BackboneSpec
from magnet_core.backbones.weights import weights_file
from magnet_core.errors import MagnetError

# B patches, T tokens, D pooled features, O features of the own square, C channels of the model's own map (h, w) and of
# a token; D = 2 C for cls+mean


@dataclass(frozen=True)
class Features:
    """Raw features of B patches: pooled (B, D), tokens (B, T, C), own (B, O), None where it was not asked for."""

    pooled: Tensor
    tokens: Tensor
    own: Tensor | None = None

    @property
    def fine(self) -> Tensor:
        """What a fine row is learnt from: the pooled feature, then that of its own square, (B, D + O)."""
        return self.pooled if self.own is None else torch.cat([self.pooled, self.own], dim=1)


class Encoder(nn.Module):
    """A timm model that takes uint8 patches and gives pooled and token features.

    BatchNorm layers keep their running statistics in training mode too: a batch is a few windows of one slide, and
    its statistics are not those of the data.
    """

    def __init__(self, model: nn.Module, spec: BackboneSpec) -> None:
        super().__init__()
        config = resolve_model_data_config(model)
        # timm's models have no common type; each has forward_features, forward_head and num_features.
        self.model: Any = model.to(memory_format=torch.channels_last)  # as patches arrive
        self.spec = spec
        self.mean: Tensor
        self.std: Tensor
        self.register_buffer("mean", torch.tensor(spec.mean or config["mean"]).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(spec.std or config["std"]).view(1, 3, 1, 1), persistent=False)

    @property
    def width(self) -> int:
        """Number of features D of the pooled feature."""
        channels = int(self.model.num_features)
        return 2 * channels if self.spec.pooling == "cls+mean" else channels

    def token_shape(self, token_grid: int) -> tuple[int, int]:
        """Return T and C of the tokens of a patch; the one token of grid 1 is the pooled feature."""
        return (1, self.width) if token_grid == 1 else (token_grid**2, int(self.model.num_features))

    def own_width(self, square: OwnSquare) -> int:
        """Return the number of features O of a patch's own square."""
        return 2 * sum(channels_of(self.model, stages_of(self.model, square)))

    def train(self, mode: bool = True) -> "Encoder":
        """Switch to training mode, except for the BatchNorm statistics."""
        super().train(mode)
        for module in self.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                module.eval()
        return self

    def forward(self, patches: Tensor, token_grid: int = 4, *, own: OwnSquare | None = None) -> Features:
        """Encode (B, H, W, 3) uint8 patches."""
        stages = [] if own is None else stages_of(self.model, own)
        raw, maps = self._run(self.normalise(patches), stages)
        feature_map = self._feature_map(raw)
        pooled = self._pooled(raw, feature_map)
        of_square = None
        if own is not None:
            maps |= {LAST: feature_map}
            of_square = torch.cat([mean_and_spread(maps[stage], own) for stage in stages], dim=1)
        if token_grid == 1:
            return Features(pooled, pooled.unsqueeze(1), of_square)
        squares = F.adaptive_avg_pool2d(feature_map, token_grid)  # (B,C,h,w) -> (B,C,g,g)
        return Features(pooled, squares.flatten(2).transpose(1, 2), of_square)  # (B,C,g,g) -> (B,T,C)

    def normalise(self, patches: Tensor) -> Tensor:
        """Return (B, 3, h, w) normalised float images of the size the model takes."""
        images = patches.permute(0, 3, 1, 2).to(self.mean.dtype, copy=True)  # (B,H,W,3) -> (B,3,H,W)
        if self.spec.input_px and images.shape[-1] != self.spec.input_px:
            size = (self.spec.input_px, self.spec.input_px)
            images = F.interpolate(images, size=size, mode="bilinear", antialias=True, align_corners=False)
        return images.sub_(255 * self.mean).div_(255 * self.std)

    def _run(self, images: Tensor, stages: list[int]) -> tuple[Tensor, dict[int, Tensor]]:
        """Return the model's raw output, and the maps (B, C, h, w) of stages before its last one."""
        earlier = [stage for stage in stages if stage != LAST]
        if not earlier:
            return self.model.forward_features(images), {}
        # The output is that of forward_features, bit for bit; `norm` keeps a ViT's blocks in the range of float16.
        raw, maps = self.model.forward_intermediates(images, indices=sorted(earlier), norm=True, output_fmt="NCHW")
        return raw, dict(zip(sorted(earlier), maps, strict=True))

    def _feature_map(self, raw: Tensor) -> Tensor:
        """Return the feature map (B, C, h, w) of the patch tokens; class and register tokens are none of them."""
        if raw.ndim == 3:
            patch_tokens = raw[:, getattr(self.model, "num_prefix_tokens", 0) :]  # (B,prefix+h*w,C) -> (B,h*w,C)
            side = math.isqrt(patch_tokens.shape[1])
            squared: Tensor = patch_tokens.transpose(1, 2).unflatten(2, (side, side))  # (B,h*w,C) -> (B,C,h,w)
            return squared
        return raw if raw.shape[1] == self.model.num_features else raw.permute(0, 3, 1, 2)  # (B,h,w,C) -> (B,C,h,w)

    def _pooled(self, raw: Tensor, feature_map: Tensor) -> Tensor:
        """Return the pooled feature (B, D) as the spec says.

        A model whose head widens its features (MobileNet) is pooled before that head, so that map and pooled feature
        have one width.
        """
        match self.spec.pooling:
            case "cls":
                return raw[:, 0]
            case "cls+mean":
                return torch.cat([raw[:, 0], feature_map.mean(dim=(2, 3))], dim=1)
            case "model" if getattr(self.model, "head_hidden_size", self.width) == self.width:
                pooled: Tensor = self.model.forward_head(raw, pre_logits=True)
                return pooled
            case _:
                return feature_map.mean(dim=(2, 3))


def with_class_token(tokens: Tensor, pooled: Tensor) -> Tensor:
    """Bring tokens (B, T, C) to the width of the pooled feature (B, D), by the class token that it begins with.

    Their mean is then the pooled feature. Tokens that have its width already are returned as they are.
    """
    class_token = pooled[:, None, : pooled.shape[1] - tokens.shape[2]]
    if class_token.shape[2] == 0:
        return tokens
    return torch.cat([class_token.expand(-1, tokens.shape[1], -1), tokens], dim=2)


def build_encoder(
    spec: BackboneSpec, weights: str = "pretrained", *, seed: int = 0, sha256: str | None = None
) -> Encoder:
    """Build a backbone with `pretrained`, `random` (drawn from `seed`) or file weights, in eval mode.

    Raises MagnetError when weights cannot be had, cannot be read, are a file of another `sha256`, or belong to another
    architecture.
    """
    path = weights_file(spec, weights, sha256=sha256)
    if spec.architecture.startswith("hf-hub:"):
        require_timm_config(spec)
    with _as_described(spec):
        model = draw_model(spec, seed=seed) if path is None else model_to_fill(spec)
    if path is not None:
        load_weights(model, path, name=spec.name)
    with _as_described(spec):
        return Encoder(model, replace(spec, input_px=spec.input_px or _only_input_px(model))).eval()


@contextmanager
def _as_described(spec: BackboneSpec) -> Iterator[None]:
    """Refuse in one line a model whose description on the hub, which anybody may have written, timm cannot follow."""
    try:
        yield
    except (
        ArithmeticError,
        AssertionError,
        AttributeError,
        LookupError,
        MemoryError,
        RuntimeError,
        TypeError,
        ValueError,
    ) as error:
        if not spec.architecture.startswith("hf-hub:"):
            raise
        raise MagnetError(
            f"backbone '{spec.pinned_name}'",
            expected="a config.json on the hub from which timm can build the model",
            found=f"{type(error).__name__}: {error}",
            remedy="tell its authors; or use --backbone timm:NAME and --weights PATH",
        ) from error


def _only_input_px(model: nn.Module) -> int | None:
    """Return the one input size of a model whose position embeddings are laid for it; None if any will do."""
    embed = getattr(model, "patch_embed", None)
    img_size: tuple[int, int] | None = getattr(embed, "img_size", None)
    return img_size[0] if img_size and getattr(embed, "strict_img_size", False) else None

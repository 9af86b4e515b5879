"""How much arithmetic an encoder does for a patch, counted on the model itself; no weights are needed.

In: the spec of a backbone and the side of a patch. Out: floating-point operations of one pass forward, two for a
multiplication and an addition together, as `torch.utils.flop_counter` counts them. The model is laid out on the meta
device, which has shapes and computes nothing.
"""

from dataclasses import replace
from functools import cache

import timm
import torch
from torch.utils.flop_counter import FlopCounterMode

from magnet_core.backbones.architecture import draw_model, timm_kwargs
from magnet_core.backbones.encoder import Encoder
from magnet_core.backbones.find import find_backbone
from magnet_core.backbones.hub import require_timm_config


@cache
def shape_of_encoder(backbone: str) -> Encoder:
    """Build a backbone by its name, without values: for widths, and for counting."""
    spec = find_backbone(backbone)
    if spec.architecture.startswith("hf-hub:"):
        require_timm_config(spec)
    try:
        with torch.device("meta"):
            model = timm.create_model(spec.architecture, pretrained=False, num_classes=0, **timm_kwargs(spec))
    except RuntimeError:  # a value was asked for while it was built
        model = draw_model(spec, seed=0)
    with torch.device("meta"):
        encoder = Encoder(model.to("meta"), spec)
    fixed = getattr(getattr(model, "patch_embed", None), "strict_img_size", False)
    if spec.input_px is None and fixed:
        encoder.spec = replace(spec, input_px=model.patch_embed.img_size[0])
    return encoder.eval()


@cache
def patch_flops(backbone: str, side_px: int) -> int:
    """Operations of one pass over a patch of `side_px` pixels a side, resized first where the encoder asks for it."""
    encoder = shape_of_encoder(backbone)
    with torch.inference_mode(), FlopCounterMode(display=False) as counter:
        encoder(torch.zeros((1, side_px, side_px, 3), dtype=torch.uint8, device="meta"))
    return int(counter.get_total_flops())

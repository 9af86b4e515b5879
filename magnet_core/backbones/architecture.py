"""Build the timm model of a spec: with weights drawn at random, or with room for weights that a checkpoint brings.

Drawing the weights of a ViT-g takes half a minute; those of a checkpoint replace every one of them.
"""

from typing import Any

import timm
import torch
from timm.layers import SwiGLUPacked
from torch import Tensor, nn

from magnet_core.backbones.spec import BackboneSpec

LAYERS: dict[str, type[nn.Module]] = {"SwiGLUPacked": SwiGLUPacked, "SiLU": nn.SiLU}  # by their names in a spec


def draw_model(spec: BackboneSpec, *, seed: int) -> nn.Module:
    """Build a model with weights drawn from `seed`; the global generator stays as it is."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return _create(spec)


def model_to_fill(spec: BackboneSpec) -> nn.Module:
    """Build a model whose parameters and buffers have yet to be loaded, every one that its state dict names.

    It is laid out on the meta device, which computes nothing. A model with values of its own that no checkpoint holds
    (tables of positions, masks), or that cannot be laid out so, is built in the ordinary way.
    """
    try:
        with torch.device("meta"):
            model = _create(spec)
    except RuntimeError:  # a value was asked for while it was built
        return draw_model(spec, seed=0)
    if _has_values_of_its_own(model):
        return draw_model(spec, seed=0)
    return model.to_empty(device="cpu")


def timm_kwargs(spec: BackboneSpec) -> dict[str, Any]:
    """Return what `timm.create_model` takes beside the architecture: layers that a spec names are put in."""
    named = {key: LAYERS[value] for key, value in spec.kwargs.items() if key.endswith("_layer") and value in LAYERS}
    return {**spec.kwargs, **named}


def _create(spec: BackboneSpec) -> nn.Module:
    at = f"@{spec.revision}" if spec.revision and spec.architecture.startswith("hf-hub:") else ""
    model: nn.Module = timm.create_model(
        f"{spec.architecture}{at}", pretrained=False, num_classes=0, **timm_kwargs(spec)
    )
    return model


def _has_values_of_its_own(model: nn.Module) -> bool:
    """Tell whether there are buffers beyond the state dict, or tensors that are mere attributes of a module."""
    stored = model.state_dict().keys()
    if any(name not in stored for name, _ in model.named_buffers()):
        return True
    return any(isinstance(value, Tensor) for module in model.modules() for value in vars(module).values())

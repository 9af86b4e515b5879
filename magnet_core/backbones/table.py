"""The backbone table: names users type, and how each is built from timm.

Any other model is reached as `timm:NAME` (an architecture of timm) or `hf-hub:ORG/NAME` (a timm model on the hub).
"""

import timm

from magnet_core.backbones.spec import BackboneSpec
from magnet_core.errors import MagnetError
from magnet_core.registry import look_up, near_names

_VIT = {"dynamic_img_size": True}

BACKBONES: dict[str, BackboneSpec] = {
    spec.name: spec
    for spec in (
        BackboneSpec(
            "resnet50",  # the paper's encoder (section 3), ImageNet weights
            architecture="resnet50.tv_in1k",
            hub_id="timm/resnet50.tv_in1k",
            licence="BSD-3-Clause",
        ),
        BackboneSpec(
            "resnet18",
            architecture="resnet18.tv_in1k",
            hub_id="timm/resnet18.tv_in1k",
            licence="BSD-3-Clause",
        ),
        BackboneSpec(
            "uni",  # Chen et al. 2024, the paper's Table 4
            architecture="vit_large_patch16_224",
            hub_id="MahmoodLab/UNI",
            kwargs={**_VIT, "init_values": 1e-5},
            input_px=224,
            mean=(0.485, 0.456, 0.406),
            std=(0.229, 0.224, 0.225),
            licence="CC-BY-NC-ND-4.0",
            gated=True,
        ),
    )
}


def find_backbone(name: str) -> BackboneSpec:
    """Return the spec of a table name, of `timm:NAME`, or of `hf-hub:ORG/NAME`; errors list near names."""
    kind, _, rest = name.partition(":")
    if kind == "hf-hub" and rest:
        return BackboneSpec(name, architecture=name, hub_id=rest)
    if kind == "timm" and rest:
        return _timm_spec(name, rest)
    return look_up(BACKBONES, name, where="--backbone")


def _timm_spec(name: str, architecture: str) -> BackboneSpec:
    if not timm.is_model(architecture.partition(".")[0]):
        remedy = near_names(architecture, timm.list_models())
        if remedy.startswith("choose"):
            remedy = "see timm.list_models() for all of them"
        raise MagnetError("--backbone", expected="a model of timm", found=f"'{architecture}'", remedy=remedy)
    cfg = timm.get_pretrained_cfg(architecture)
    hub_id = getattr(cfg, "hf_hub_id", None)
    if hub_id and hub_id.endswith("/"):  # timm's shorthand: the organisation, the model's own name follows
        hub_id = f"{hub_id}{cfg.architecture}.{cfg.tag}" if cfg.tag else f"{hub_id}{cfg.architecture}"
    return BackboneSpec(
        name,
        architecture=architecture,
        hub_id=hub_id,
        input_px=cfg.input_size[-1] if cfg and cfg.fixed_input_size else None,
        licence=(cfg and cfg.license) or BackboneSpec.licence,
    )

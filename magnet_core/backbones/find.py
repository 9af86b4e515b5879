"""From what users type after --backbone to a spec: a name of the table, `timm:NAME` or `hf-hub:ORG/NAME`.

Each may end with `@REVISION`, a branch, tag or commit of its weights on the hub.
"""

from dataclasses import replace

import timm

from magnet_core.backbones.names import named_spec, split_revision
from magnet_core.backbones.spec import BackboneSpec
from magnet_core.errors import MagnetError
from magnet_core.registry import near_names


def find_backbone(name: str) -> BackboneSpec:
    """Return the spec of a table name, of `timm:NAME`, or of `hf-hub:ORG/NAME`, each with or without `@REVISION`.

    Raises MagnetError for a name that is none of them, with the near names, and for a model that timm cannot build,
    with the reason.
    """
    if spec := named_spec(name):
        return spec
    bare, revision = split_revision(name)
    return replace(_timm_spec(bare, bare.partition(":")[2]), revision=revision)


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

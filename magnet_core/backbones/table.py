"""The backbone table: names users type, and how each is built from timm.

Facts are those of the model pages (`BackboneSpec.page`) and of the configuration files beside the weights; what no code
needs (training resolution, terms, gate) is in `cards.py`, each with its source. Imports neither torch nor timm: layers
stand by their names, see `architecture.LAYERS`.
"""

from typing import Any

from magnet_core.backbones.spec import BackboneSpec

_IMAGENET: dict[str, Any] = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}
_BIOPTIMUS: dict[str, Any] = {"mean": (0.707223, 0.578729, 0.703617), "std": (0.211883, 0.230117, 0.177517)}
_HIBOU: dict[str, Any] = {"mean": (0.7068, 0.5755, 0.722), "std": (0.195, 0.2316, 0.1816)}

_HALF: dict[str, Any] = {"mean": (0.5, 0.5, 0.5), "std": (0.5, 0.5, 0.5)}

_NON_COMMERCIAL: dict[str, Any] = {"licence": "CC-BY-NC-ND-4.0"}
_VIT = {"img_size": 224, "init_values": 1e-5, "dynamic_img_size": True}  # other sizes resample the position embedding
_SWIGLU = {"mlp_layer": "SwiGLUPacked", "act_layer": "SiLU"}  # mlp_ratio then counts gate and value together

_GENERAL = (
    BackboneSpec(
        "resnet50",  # the paper's encoder (section 3), ImageNet weights
        architecture="resnet50.tv_in1k",
        hub_id="timm/resnet50.tv_in1k",
        pooling="avg",
        width=2048,
        licence="BSD-3-Clause",
    ),
    BackboneSpec(
        "resnet18",
        architecture="resnet18.tv_in1k",
        hub_id="timm/resnet18.tv_in1k",
        pooling="avg",
        width=512,
        licence="BSD-3-Clause",
    ),
)

_MAHMOOD_LAB = (
    BackboneSpec(
        "uni",  # Chen et al. 2024, the paper's Table 4
        architecture="vit_large_patch16_224",
        hub_id="MahmoodLab/UNI",
        kwargs=_VIT,
        input_px=224,
        pooling="cls",
        width=1024,
        patch_tokens=196,
        prefix_tokens=1,
        **_IMAGENET,
        **_NON_COMMERCIAL,
    ),
    BackboneSpec(
        "uni2-h",
        architecture="vit_giant_patch14_224",
        hub_id="MahmoodLab/UNI2-h",
        kwargs={
            **_VIT,
            **_SWIGLU,
            "embed_dim": 1536,
            "depth": 24,
            "num_heads": 24,
            "mlp_ratio": 2.66667 * 2,
            "reg_tokens": 8,
            "no_embed_class": True,
        },
        input_px=224,
        pooling="cls",
        width=1536,
        patch_tokens=256,
        prefix_tokens=9,
        **_IMAGENET,
        **_NON_COMMERCIAL,
    ),
)

_OTHERS = (
    BackboneSpec(
        "virchow2",  # Zimmermann et al. 2024
        architecture="vit_huge_patch14_224",
        hub_id="paige-ai/Virchow2",
        kwargs={**_VIT, **_SWIGLU, "mlp_ratio": 5.3375, "reg_tokens": 4},
        input_px=224,
        pooling="cls+mean",
        width=2 * 1280,
        patch_tokens=256,
        prefix_tokens=5,
        **_IMAGENET,
        **_NON_COMMERCIAL,
    ),
    BackboneSpec(
        "h-optimus-0",
        architecture="vit_giant_patch14_reg4_dinov2",
        hub_id="bioptimus/H-optimus-0",
        kwargs=_VIT,
        input_px=224,
        pooling="cls",
        width=1536,
        patch_tokens=256,
        prefix_tokens=5,
        licence="Apache-2.0",
        **_BIOPTIMUS,
    ),
    BackboneSpec(
        "h-optimus-1",
        architecture="vit_giant_patch14_reg4_dinov2",
        hub_id="bioptimus/H-optimus-1",
        kwargs=_VIT,
        input_px=224,
        pooling="cls",
        width=1536,
        patch_tokens=256,
        prefix_tokens=5,
        **_BIOPTIMUS,
        **_NON_COMMERCIAL,
    ),
    BackboneSpec(
        "prov-gigapath",  # Xu et al. 2024: the tile encoder
        architecture="vit_giant_patch14_dinov2",
        hub_id="prov-gigapath/prov-gigapath",
        kwargs={**_VIT, "patch_size": 16},
        input_px=224,
        pooling="cls",
        width=1536,
        patch_tokens=196,
        prefix_tokens=1,
        licence="Apache-2.0",
        **_IMAGENET,
    ),
    BackboneSpec(
        "phikon-v2",  # Filiot et al. 2024; weights in the layout of transformers
        architecture="vit_large_patch14_dinov2",
        hub_id="owkin/phikon-v2",
        kwargs={**_VIT, "patch_size": 16},
        input_px=224,
        pooling="cls",
        width=1024,
        patch_tokens=196,
        prefix_tokens=1,
        licence="Owkin non-commercial",
        **_IMAGENET,
    ),
    BackboneSpec(
        "hibou-l",  # Nechaev et al. 2024; weights in the layout of transformers
        architecture="vit_large_patch14_reg4_dinov2",
        hub_id="histai/hibou-L",
        kwargs={**_VIT, **_SWIGLU, "mlp_ratio": 5472 / 1024},
        input_px=224,
        pooling="cls",
        width=1024,
        patch_tokens=256,
        prefix_tokens=5,
        licence="Apache-2.0",
        **_HIBOU,
    ),
    BackboneSpec(
        "midnight-12k",  # Karasikov et al. 2025; weights in the layout of transformers
        architecture="vit_giant_patch14_dinov2",
        hub_id="kaiko-ai/midnight",
        kwargs=_VIT,
        input_px=224,
        pooling="cls+mean",
        width=2 * 1536,
        patch_tokens=256,
        prefix_tokens=1,
        licence="MIT",
        **_HALF,
    ),
)

BACKBONES: dict[str, BackboneSpec] = {spec.name: spec for spec in (*_GENERAL, *_MAHMOOD_LAB, *_OTHERS)}

NOT_BUILT_BY_TIMM: dict[str, str] = {
    "conch-v1_5": "its pooled feature comes from an attention pooler and a projection that timm's ViT-L/16 lacks",
    "conch": "its pooled feature comes from an attention pooler and a projection that timm's ViT-B/16 lacks",
}

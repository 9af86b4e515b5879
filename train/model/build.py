"""An untrained predictor that fits the features of a slide, and the encoder that a store's features were made with.

In: a configuration, the header of stored features. Out: a `Predictor`, an `Encoder`.
"""

from collections.abc import Mapping
from typing import Any

from cache.state_digest import state_sha256
from magnet_core.backbones.encoder import Encoder, build_encoder
from magnet_core.backbones.find import find_backbone
from magnet_core.backbones.names import with_revision
from magnet_core.backbones.tuning import tune
from magnet_core.errors import MagnetError
from magnet_core.model import MagNet
from train.data.slide import Slide
from train.model.predictor import Predictor
from train.settings.fit import FitConfig


def build_predictor(config: FitConfig, slide: Slide, *, num_genes: int) -> Predictor:
    """Build an untrained predictor that fits the features of a slide; its weights are drawn from the global seed.

    Its encoder is the one the slide's features were made with, made trainable as the configuration says; none where
    the encoder stays frozen, as its features are in the store.
    """
    encoder = None
    if config.encoder.mode != "frozen":
        encoder = rebuild_encoder(slide.features_header)
        tune(encoder, config.encoder)
    widths = {name: level.width for name, level in slide.contexts.items()}
    model = MagNet(config.model, fine_dim=slide.fine.fine_width, context_dims=widths, num_genes=num_genes)
    return Predictor(encoder, model, config.compute, own=slide.fine.own_square)


def rebuild_encoder(features_header: Mapping[str, Any]) -> Encoder:
    """Build the encoder a store's features were made with; weights that are not those any more are an error."""
    weights = features_header["weights"]
    if weights["source"] == "imported":
        raise MagnetError(
            f"backbone '{features_header['backbone']}'",
            expected="features made by 'extract run', whose encoder can be fine-tuned",
            found="imported ones, without their encoder",
            remedy="learn from them as they are (--bins frozen, or no --finetune), or run 'extract run --backbone' "
            "with the encoder's weights",
        )
    spec = find_backbone(with_revision(features_header["backbone"], weights.get("revision")))
    encoder = build_encoder(spec, weights["source"], seed=weights["seed"], sha256=weights.get("sha256"))
    expected = features_header["settings"]["weights_sha256"]
    if (digest := state_sha256(encoder.state_dict())) != expected:
        raise MagnetError(
            f"backbone '{features_header['backbone']}'",
            expected=f"the weights the store was made with (sha256 {expected[:12]})",
            found=f"weights '{weights['source']}' with sha256 {digest[:12]}",
            remedy="restore that file, or extract again with the new weights",
        )
    return encoder

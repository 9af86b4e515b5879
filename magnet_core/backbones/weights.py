"""Where weights come from: `pretrained` (the hub or its local cache), `random` (seeded), or a file."""

from pathlib import Path

from magnet_core.backbones.hub import hub_file, unavailable
from magnet_core.backbones.names import named_file
from magnet_core.backbones.spec import BackboneSpec

_WEIGHT_FILES = ("model.safetensors", "pytorch_model.bin")


def weights_file(spec: BackboneSpec, weights: str) -> Path | None:
    """Return the file that holds the weights, fetching it if need be; None for `random`.

    Raises MagnetError when there is no such file, or the hub cannot or will not give it.
    """
    return _fetch(spec) if weights == "pretrained" else named_file(weights)


def _fetch(spec: BackboneSpec) -> Path:
    for filename in _WEIGHT_FILES:
        path = hub_file(spec, filename)
        if path is not None:
            return path
    raise unavailable(spec, found=f"none of {', '.join(_WEIGHT_FILES)}")

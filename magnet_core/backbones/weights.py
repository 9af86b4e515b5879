"""Where weights come from: `pretrained` (the hub or its local cache), `random` (seeded), or a file."""

from pathlib import Path

from magnet_core.backbones.hub import hub_file, unavailable
from magnet_core.backbones.spec import BackboneSpec
from magnet_core.errors import MagnetError

_WEIGHT_FILES = ("model.safetensors", "pytorch_model.bin")


def weights_file(spec: BackboneSpec, weights: str) -> Path | None:
    """Return the file that holds the weights, fetching it if need be; None for `random`.

    Raises MagnetError when there is no such file, or the hub cannot or will not give it.
    """
    if weights == "random":
        return None
    if weights == "pretrained":
        return _fetch(spec)
    path = Path(weights).expanduser()
    if not path.is_file():
        raise MagnetError(
            f"--weights {weights}",
            expected="'pretrained', 'random' or a file (safetensors, or a torch state dict)",
            found="a folder" if path.is_dir() else "no such file",
            remedy="name the file in it" if path.is_dir() else "check the path",
        )
    return path


def _fetch(spec: BackboneSpec) -> Path:
    for filename in _WEIGHT_FILES:
        path = hub_file(spec, filename)
        if path is not None:
            return path
    raise unavailable(spec, found=f"none of {', '.join(_WEIGHT_FILES)}")

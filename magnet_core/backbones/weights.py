"""Where weights come from: `pretrained` (the hub or its local cache), `random` (seeded), or a file."""

import hashlib
from pathlib import Path

from magnet_core.backbones.hub import hub_file, unavailable
from magnet_core.backbones.names import named_file
from magnet_core.backbones.spec import BackboneSpec
from magnet_core.errors import MagnetError

_WEIGHT_FILES = ("model.safetensors", "pytorch_model.bin")


def weights_file(spec: BackboneSpec, weights: str, *, sha256: str | None = None) -> Path | None:
    """Return the file that holds the weights, fetching it if need be; None for `random`.

    Raises MagnetError when there is no such file, when the hub cannot or will not give it, or when its sha256 (64
    lower-case hexadecimal digits) is another than the one that is expected.
    """
    path = _fetch(spec) if weights == "pretrained" else named_file(weights)
    if sha256 and path:
        _compare(path, sha256)
    return path


def _fetch(spec: BackboneSpec) -> Path:
    for filename in _WEIGHT_FILES:
        path = hub_file(spec, filename)
        if path is not None:
            return path
    raise unavailable(spec, found=f"none of {', '.join(_WEIGHT_FILES)}")


def _compare(path: Path, expected: str) -> None:
    with path.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != expected:
        remedy = "do not use this file; or correct --weights-sha256, as the page of the weights has it"
        raise MagnetError(path, expected=f"a file of sha256 {expected}", found=f"sha256 {found}", remedy=remedy)

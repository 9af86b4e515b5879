"""What users name with --backbone and --weights, checked before torch, timm and the hub's client are imported.

In: the names. Out: a spec, or the path of a checkpoint; None where only a library can tell.
"""

from pathlib import Path

from magnet_core.backbones.spec import BackboneSpec
from magnet_core.backbones.table import BACKBONES, NOT_BUILT_BY_TIMM
from magnet_core.errors import MagnetError
from magnet_core.registry import look_up

NO_FILES = ("random", "pretrained")  # weights that no file of the user's holds


def named_spec(name: str, *, where: str = "--backbone") -> BackboneSpec | None:
    """Return the spec of a table name, or of `hf-hub:ORG/NAME`; None for `timm:NAME`, of which timm has to be asked.

    Raises MagnetError for a name that is none of them, with the near names, and for one that timm cannot build.
    """
    kind, _, rest = name.partition(":")
    if kind == "hf-hub" and rest:
        return BackboneSpec(name, architecture=name, hub_id=rest)
    if kind == "timm" and rest:
        return None
    if name.lower() in NOT_BUILT_BY_TIMM:
        raise MagnetError(
            f"{where} {name}",
            expected="a model that timm can build",
            found=f"one that it cannot: {NOT_BUILT_BY_TIMM[name.lower()]}",
            remedy="use another of 'extract backbones', or bring its features in with 'cache import'",
        )
    return look_up(BACKBONES, name, where=where)


def named_file(weights: str, *, where: str = "--weights") -> Path | None:
    """Return the checkpoint that the user names; None for `random` and `pretrained`."""
    if weights in NO_FILES:
        return None
    path = Path(weights).expanduser()
    if not path.is_file():
        raise MagnetError(
            f"{where} {weights}",
            expected="'pretrained', 'random' or a file (safetensors, or a torch state dict)",
            found="a folder" if path.is_dir() else "no such file",
            remedy="name the file in it" if path.is_dir() else "check the path",
        )
    return path

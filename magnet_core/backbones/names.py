"""What users name with --backbone and --weights, checked before torch, timm and the hub's client are imported.

In: the names. Out: a spec, or the path of a checkpoint; None where only a library can tell.
"""

import re
from dataclasses import replace
from pathlib import Path

from magnet_core.backbones.spec import BackboneSpec
from magnet_core.backbones.table import BACKBONES, NOT_BUILT_BY_TIMM
from magnet_core.errors import MagnetError
from magnet_core.paths import no_file, written_path
from magnet_core.registry import look_up

NO_FILES = ("random", "pretrained")  # weights that no file of the user's holds
_REVISION = re.compile(r"(?!.*\.\.)[A-Za-z0-9][A-Za-z0-9._/-]{0,99}")


def split_revision(name: str, *, where: str = "--backbone") -> tuple[str, str | None]:
    """Return `uni` and `v1` of `uni@v1`: a backbone, and the branch, tag or commit that it has on the hub."""
    bare, at, revision = name.partition("@")
    if at and not _REVISION.fullmatch(revision):
        expected, found = "a branch, a tag or a commit after '@'", f"'{revision}'"
        raise MagnetError(f"{where} {name}", expected=expected, found=found, remedy="copy it from the model's page")
    return bare, revision or None


def with_revision(name: str, revision: str | None) -> str:
    """Return the name of a backbone with the revision that it has, the inverse of `split_revision`."""
    return f"{name}@{revision}" if revision else name


def named_spec(name: str, *, where: str = "--backbone") -> BackboneSpec | None:
    """Return the spec of a table name, or of `hf-hub:ORG/NAME`; None for `timm:NAME`, of which timm has to be asked.

    Each may end with `@REVISION`. Raises MagnetError for a name that is none of them, with the near names, and for one
    that timm cannot build.
    """
    name, revision = split_revision(name, where=where)
    kind, _, rest = name.partition(":")
    if kind == "hf-hub" and rest:
        return BackboneSpec(name, architecture=name, hub_id=rest, revision=revision)
    if kind == "timm" and rest:
        return None
    if name.lower() in NOT_BUILT_BY_TIMM:
        raise MagnetError(
            f"{where} {name}",
            expected="a model that timm can build",
            found=f"one that it cannot: {NOT_BUILT_BY_TIMM[name.lower()]}",
            remedy="use another of 'extract backbones', or bring its features in with 'cache import'",
        )
    return replace(look_up(BACKBONES, name, where=where), revision=revision)


def named_file(weights: str, *, where: str = "--weights") -> Path | None:
    """Return the checkpoint that the user names; None for `random` and `pretrained`."""
    if weights in NO_FILES:
        return None
    path = written_path(weights, where=where)
    if fault := no_file(path):
        raise MagnetError(
            f"{where} {weights}",
            expected="'pretrained', 'random' or a file (safetensors, or a torch state dict)",
            found=fault,
            remedy="name the file in it" if fault == "a folder" else "check the path",
        )
    return path

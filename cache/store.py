"""The store on disk: which slides there are, and which files hold their geometry and features.

In: the store's folder. Out: `ArrayFile`s by slide and backbone. Serves design section "The store":

    store.json                            schema version, sample table, provenance
    <slide_id>/geometry.lmdb              grids, coordinates, pairing, edges, counts, pixels
    <slide_id>/<backbone>-<digest>.lmdb   features of one backbone with one set of settings
"""

import json
import platform
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

from cache.canonical import canonical_json
from cache.lmdb_file import AbsentFileError
from cache.lock import FileLock
from cache.reader import ArrayFile
from cache.schema import SCHEMA_VERSION
from magnet_core.errors import MagnetError
from magnet_core.files import write_text
from magnet_core.registry import look_up

GEOMETRY = "geometry.lmdb"
_SLIDE_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._\-]*")
_UNSAFE = re.compile(r"[^A-Za-z0-9._]+")
_PACKAGES = ("magnet-hd", "numpy", "torch", "timm", "lmdb", "faiss-cpu", "faiss-gpu")


@dataclass(frozen=True)
class FeatureFile:
    """One finished feature file of a slide.

    digest           covers all that decides the bytes, the slide included; part of the file's name
    settings_digest  covers the settings alone, and so is the same for all slides extracted with them
    geometry_digest  of the geometry whose rows these are; None where the writer did not say
    """

    backbone: str
    digest: str
    path: Path
    settings_digest: str
    geometry_digest: str | None


class Store:
    """An existing store. A folder without store.json, or of a newer schema version, is an error."""

    def __init__(self, root: str | Path) -> None:
        self.root = Path(root)
        self._index = self.root / "store.json"
        self._read_index()

    @classmethod
    def create(cls, root: str | Path) -> "Store":
        """Make a store, or open the existing one."""
        index = Path(root) / "store.json"
        index.parent.mkdir(parents=True, exist_ok=True)
        empty = {
            "schema_version": SCHEMA_VERSION,
            "created": _now(),
            "provenance": package_versions(),
            "samples": [],
        }
        _update(index, lambda content: content or empty)
        return cls(root)

    def register(self, rows: Iterable[Mapping[str, object]]) -> None:
        """Add rows of the sample table, each with its `slide_id`; the row of a registered slide is replaced.

        Many jobs may do so at once: the table is read, changed and replaced under a lock.
        """
        added = {check_slide_id(str(row["slide_id"])): json.loads(canonical_json(dict(row))) for row in rows}

        def with_rows(content: dict[str, Any]) -> dict[str, Any]:
            table = {row["slide_id"]: row for row in content["samples"]} | added
            samples = [table[slide_id] for slide_id in sorted(table)]
            return content | {"samples": samples, "provenance": package_versions(), "updated": _now()}

        _update(self._index, with_rows)

    def samples(self) -> list[dict[str, Any]]:
        """The sample table, ordered by slide id."""
        samples: list[dict[str, Any]] = self._read_index()["samples"]
        return samples

    def provenance(self) -> dict[str, str]:
        """Versions of the packages that last wrote to the store."""
        versions: dict[str, str] = self._read_index()["provenance"]
        return versions

    def slide_ids(self) -> list[str]:
        """Ids of the registered slides, sorted."""
        return [row["slide_id"] for row in self.samples()]

    def geometry_path(self, slide_id: str) -> Path:
        """Return the path of a slide's geometry, which need not exist yet."""
        return self.root / check_slide_id(slide_id) / GEOMETRY

    def features_path(self, slide_id: str, backbone: str, digest: str) -> Path:
        """Return the path of a slide's features of one backbone, which need not exist yet."""
        return self.root / check_slide_id(slide_id) / f"{backbone_slug(backbone)}-{digest}.lmdb"

    def geometry(self, slide_id: str) -> ArrayFile:
        """Open a slide's geometry; an absent or unfinished file is an `AbsentFileError`."""
        look_up(dict.fromkeys(self.slide_ids()), slide_id, where=f"{self.root}: slide")
        return ArrayFile(self.geometry_path(slide_id))

    def feature_files(self, slide_id: str) -> list[FeatureFile]:
        """The finished feature files of a slide, ordered by file name."""
        files = []
        for path in sorted((self.root / check_slide_id(slide_id)).glob("*.lmdb")):
            if path.name == GEOMETRY:
                continue
            try:
                with ArrayFile(path) as features:
                    header = features.header
            except AbsentFileError:
                continue
            digest = path.stem.rpartition("-")[2]
            files.append(
                FeatureFile(header["backbone"], digest, path, header["settings_digest"], header.get("geometry_digest"))
            )
        return files

    def features(self, slide_id: str, backbone: str, settings_digest: str | None = None) -> ArrayFile:
        """Open a slide's features of one backbone; with several settings, `settings_digest` chooses.

        Of features that differ only in what they keep of a row's own square, those that keep most are meant.
        """
        files = self.feature_files(slide_id)
        of_backbone = [file for file in files if file.backbone == backbone and self._fits_geometry(slide_id, file)]
        chosen = [file for file in of_backbone if settings_digest in (None, file.settings_digest)]
        chosen = _richest(chosen) if len(chosen) > 1 else chosen
        if len(chosen) == 1:
            return ArrayFile(chosen[0].path)
        if len(chosen) > 1:
            raise MagnetError(
                f"{self.root}: {slide_id}, {backbone}",
                expected="features of one set of settings",
                found=f"{len(chosen)}: {', '.join(file.path.name for file in chosen)}",
                remedy=f"choose by settings_digest: {', '.join(file.settings_digest for file in chosen)}",
            )
        features_sought = backbone if settings_digest is None else f"{backbone} with settings {settings_digest}"
        features_in_store = sorted({f"{file.backbone} with settings {file.settings_digest}" for file in files})
        others = sorted({file.backbone for file in files} - {backbone})
        raise AbsentFileError(
            f"{self.root}: {slide_id}",
            expected=f"features of {features_sought}",
            found=", ".join(features_in_store) or "no features",
            remedy=f"run 'extract run --backbone {backbone}'"
            + (f", or choose a backbone that is there: {', '.join(others)}" if others else ""),
        )

    def _fits_geometry(self, slide_id: str, file: FeatureFile) -> bool:
        """Whether features belong to the present geometry; those of a deleted geometry may still be in the folder."""
        try:
            with ArrayFile(self.geometry_path(slide_id)) as geometry:
                return file.geometry_digest in (None, geometry.header.get("digest"))
        except AbsentFileError:
            return True

    def unfinished(self) -> list[Path]:
        """List partial files that a killed or still running extraction has left."""
        return sorted(self.root.glob("*/*.partial"))

    def _read_index(self) -> dict[str, Any]:
        if not self._index.is_file():
            raise MagnetError(
                self.root,
                expected="a store (a folder with store.json)",
                found="none",
                remedy="run 'extract run' first, or check the path",
            )
        return _parse_index(self._index)


def _richest(files: list[FeatureFile]) -> list[FeatureFile]:
    """Return one of all files whose settings are the same but for `own`: that which keeps most."""
    kept: dict[str, tuple[int, FeatureFile]] = {}
    for file in files:
        with ArrayFile(file.path) as features:
            settings = dict(features.header.get("settings", {}))
        own, others = settings.pop("own", 0), canonical_json(settings) if settings else file.settings_digest
        if others not in kept or own > kept[others][0]:
            kept[others] = own, file
    return [file for _, file in kept.values()]


def check_slide_id(slide_id: str) -> str:
    """Return the id if it may name a folder."""
    if not _SLIDE_ID.fullmatch(slide_id):
        raise MagnetError(
            "slide_id",
            expected="letters, digits and . _ - , beginning with a letter or digit",
            found=repr(slide_id),
            remedy="rename the slide in samples.csv",
        )
    return slide_id


def backbone_slug(backbone: str) -> str:
    """Spell a backbone's name for a file name: 'hf-hub:org/name' becomes 'hf-hub-org-name'."""
    return _UNSAFE.sub("-", backbone).strip("-.") or "backbone"


def package_versions() -> dict[str, str]:
    """Versions of Python and of the packages that decide what is computed."""
    versions = {"python": platform.python_version()}
    for name in _PACKAGES:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return versions


def _parse_index(index: Path) -> dict[str, Any]:
    try:
        content: dict[str, Any] = json.loads(index.read_text())
        version = int(content["schema_version"])
    except (ValueError, KeyError, TypeError) as error:
        raise MagnetError(
            index,
            expected="the index of a store",
            found=f"{type(error).__name__}: {error}",
            remedy="restore it, or delete it and run 'extract run' again: finished slides are kept",
        ) from error
    if version > SCHEMA_VERSION:
        raise MagnetError(
            index,
            expected=f"schema version {SCHEMA_VERSION} or older",
            found=f"version {version}",
            remedy="upgrade magnet-hd, or use the release that wrote the store",
        )
    return content


def _update(index: Path, change: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
    """Replace store.json by `change` of its content, under a lock and in one step: readers see the old or the new."""
    lock = FileLock(index.with_name(f"{index.name}.lock"))
    lock.acquire(wait=True)
    try:
        content = _parse_index(index) if index.is_file() else {}
        text = json.dumps(change(content), indent=2, sort_keys=True, ensure_ascii=False)
        write_text(index, f"{text}\n")
    finally:
        lock.release()


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")

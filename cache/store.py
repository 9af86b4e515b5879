"""The store on disk: which slides there are, and which files hold their geometry and features.

In: the store's folder. Out: `ArrayFile`s by slide and backbone. Serves design section "The store":

    store.json                            schema version, sample table, provenance, see `cache.index`
    <slide_id>/geometry.lmdb              grids, coordinates, pairing, edges, counts, pixels
    <slide_id>/<backbone>-<digest>.lmdb   features of one backbone with one set of settings
    <slide_id>/picture.jpg                the whole slide, small, see `cache.picture`
"""

import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cache.canonical import canonical_json
from cache.index import Row, StoreIndex, check_slide_id, package_versions, patient_of
from cache.lmdb_file import AbsentFileError
from cache.lock import FileLock
from cache.picture import PICTURE, Picture, StoredPicture, read_picture
from cache.reader import ArrayFile
from magnet_core.errors import MagnetError
from magnet_core.registry import look_up
from magnet_core.settings import differing, flat

__all__ = ["GEOMETRY", "FeatureFile", "Store", "backbone_slug", "check_slide_id", "package_versions"]

GEOMETRY = "geometry.lmdb"
MARK = "slide.lock"  # held while a slide is made that is not registered yet
_UNSAFE = re.compile(r"[^A-Za-z0-9._]+")


class OtherSlideError(MagnetError):
    """A geometry lies in the folder of another slide."""


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
        self._index = StoreIndex(self.root)
        self._index.read()

    @classmethod
    def create(cls, root: str | Path) -> "Store":
        """Make a store, or open the existing one."""
        StoreIndex(Path(root)).create()
        return cls(root)

    def register(self, rows: Iterable[Mapping[str, object]]) -> None:
        """Add rows of the sample table, each with its `slide_id`; the row of a registered slide is replaced."""
        self._index.register(rows)

    def retire(self, sheet: str, named: Collection[str]) -> list[str]:
        """Mark as stale all slides last read from a sheet that names others now; return their ids."""
        return self._index.retire(sheet, named)

    def unregister(self, slide_ids: Collection[str], *, where: Callable[[Row], bool] = lambda row: True) -> bool:
        """Take slides out of the table, of whose rows `where` holds; their files stay. Tell if all are gone."""
        return self._index.remove(slide_ids, where=where)

    def locked(self) -> AbstractContextManager[None]:
        """Keep all others from changing the table of slides meanwhile; its holder must not change it either."""
        return self._index.locked()

    @contextmanager
    def being_made(self, slide_id: str) -> Iterator[None]:
        """Around all that makes a slide up to its registration: `cache repair` takes its files for nobody's no sooner.

        Where another process is at the slide already, the mark is that one's.
        """
        folder = self.root / check_slide_id(slide_id)
        mark = FileLock(folder / MARK)
        with self.locked():
            folder.mkdir(parents=True, exist_ok=True)
            mark.acquire(wait=False)
        try:
            yield
        finally:
            mark.release()
            with suppress(OSError):  # there is something in it, unless nothing could be made
                folder.rmdir()

    def samples(self) -> list[dict[str, Any]]:
        """The sample table with its stale rows, ordered by slide id."""
        return self._index.rows()

    def current_samples(self) -> list[dict[str, Any]]:
        """The sample table without slides that their sheet no longer names."""
        return [row for row in self.samples() if not row.get("stale")]

    def stale_ids(self) -> list[str]:
        """Ids of the slides that their sheet no longer names, sorted."""
        return [row["slide_id"] for row in self.samples() if row.get("stale")]

    def provenance(self) -> dict[str, str]:
        """Versions of the packages that last wrote to the store."""
        versions: dict[str, str] = self._index.read().get("provenance", {})
        return versions

    def slide_ids(self) -> list[str]:
        """Ids of all registered slides, sorted."""
        return [row["slide_id"] for row in self.samples()]

    def patient(self, slide_id: str) -> str:
        """Return the patient of a slide, as its sheet last said; a slide without one is its own."""
        rows = {row["slide_id"]: row for row in self.samples()}
        return patient_of(look_up(rows, slide_id, where=f"{self.root}: slide"))

    def fingerprint(self, row: Mapping[str, Any]) -> str | None:
        """Return the fingerprint of a registered slide's image; None where nothing in the store says it."""
        stated: str | None = row.get("fingerprint")
        if stated is None:  # a row of before
            with suppress(MagnetError), ArrayFile(self.geometry_path(row["slide_id"])) as geometry:
                stated = geometry.header.get("settings", {}).get("image")
        return stated

    def geometry_path(self, slide_id: str) -> Path:
        """Return the path of a slide's geometry, which need not exist yet."""
        return self.root / check_slide_id(slide_id) / GEOMETRY

    def features_path(self, slide_id: str, backbone: str, digest: str) -> Path:
        """Return the path of a slide's features of one backbone, which need not exist yet."""
        return self.root / check_slide_id(slide_id) / f"{backbone_slug(backbone)}-{digest}.lmdb"

    def geometry(self, slide_id: str) -> ArrayFile:
        """Open a slide's geometry; an absent or unfinished file is an `AbsentFileError`, that of another an error."""
        look_up(dict.fromkeys(self.slide_ids()), slide_id, where=f"{self.root}: slide")
        return self.laid_geometry(slide_id)

    def laid_geometry(self, slide_id: str) -> ArrayFile:
        """Open the geometry in a slide's folder, registered or not; that of another slide is an error."""
        geometry = ArrayFile(self.geometry_path(slide_id))
        owner = slide_of(geometry.header)
        if owner not in (None, slide_id):
            raise OtherSlideError(
                geometry.path,
                expected=f"the geometry of slide '{slide_id}'",
                found=f"that of '{owner}'",
                remedy="give each slide's folder its own name again",
            )
        return geometry

    def picture_path(self, slide_id: str) -> Path:
        """Return the path of a slide's picture, which need not exist."""
        return self.root / check_slide_id(slide_id) / PICTURE

    def picture(self, slide_id: str) -> Picture | None:
        """Read the small picture of a slide; None where there is none, as in stores of before."""
        if not self.picture_path(slide_id).is_file():
            return None
        with self.geometry(slide_id) as geometry:
            header = geometry.header
        return self.stored_picture(slide_id, header).at(header["mpp"])

    def stored_picture(self, slide_id: str, header: Mapping[str, Any]) -> StoredPicture:
        """Read a slide's picture; one of another image than that of the geometry with this `header` is an error."""
        path = self.picture_path(slide_id)
        stored = read_picture(path)
        if header.get("settings", {}).get("image", stored.image) != stored.image:
            raise MagnetError(
                path,
                expected="a picture of the image that the geometry beside it was laid on",
                found="one of another image",
                remedy="give each slide's folder its own files again, or delete it and run 'extract run' again",
            )
        return stored

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
        files = self.fitting_files(slide_id)
        of_backbone = [file for file in files if file.backbone == backbone]
        chosen = [file for file in of_backbone if settings_digest in (None, file.settings_digest)]
        chosen = _richest(chosen) if len(chosen) > 1 else chosen
        if len(chosen) == 1:
            return ArrayFile(chosen[0].path)
        if len(chosen) > 1:
            raise MagnetError(
                f"{self.root}: {slide_id}, {backbone}",
                expected="features of one set of settings",
                found=f"{len(chosen)}: {', '.join(file.path.name for file in chosen)}",
                remedy=f"choose with --set data.settings_digest=..., one of {_told_apart(chosen)}",
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

    def fitting_files(self, slide_id: str) -> list[FeatureFile]:
        """Feature files of the present geometry; those of a deleted one, or of another slide, may lie there too."""
        try:
            with self.laid_geometry(slide_id) as geometry:
                laid = geometry.header.get("digest")
        except AbsentFileError:
            return self.feature_files(slide_id)
        return [file for file in self.feature_files(slide_id) if file.geometry_digest in (None, laid)]

    def unfinished(self) -> list[Path]:
        """List partial files that a killed or still running extraction has left."""
        return sorted(self.root.glob("*/*.partial"))


def slide_of(header: Mapping[str, Any]) -> str | None:
    """Return the slide that a geometry says it is of; None where it does not say."""
    stated: str | None = header.get("slide_id") or header.get("settings", {}).get("slide_id")
    return stated


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


def _told_apart(files: list[FeatureFile]) -> str:
    """Settings digests of files, each with those settings, by a common name, in which they differ."""
    settings = []
    for file in files:
        with ArrayFile(file.path) as features:
            settings.append(flat(features.header.get("settings", {})))
    names = sorted({name for each in settings[1:] for name in differing(settings[0], each)})
    said = [", ".join(f"{name} {each.get(name, 'not set')}" for name in names) for each in settings]
    pairs = zip(files, said, strict=True)
    return " or ".join(f"{file.settings_digest} ({words})" if words else file.settings_digest for file, words in pairs)


def backbone_slug(backbone: str) -> str:
    """Spell a backbone's name for a file name: 'hf-hub:org/name' becomes 'hf-hub-org-name'."""
    return _UNSAFE.sub("-", backbone).strip("-.") or "backbone"

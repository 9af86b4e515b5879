"""Imports features made elsewhere into the store, and exports features from it: `cache import`, `cache export`.

In: an h5 file of patch features (`cache.feature_h5`), and a slide whose geometry is in the store. Patches are matched
to the rows of one level by their centres. Out: a feature file in the store's own layout, whose `weights.source` is
"imported": no encoder belongs to it, so stage two can learn from it with the fine level frozen only.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import xxhash
from scipy.spatial import cKDTree

from cache.feature_h5 import MOST_PX, PatchFeatures, read_feature_h5, write_feature_h5
from cache.fingerprint import digest
from cache.reader import ArrayFile
from cache.schema import CONTENT_VERSION
from cache.store import FeatureFile, Store
from cache.writer import ArrayWriter
from magnet_core.errors import MagnetError
from magnet_core.levels import CENTRE, REGION, SPOT
from magnet_core.registry import look_up

# N rows of a level, M patches of a file, D features

IMPORTED = "imported"  # weights.source of features that were made elsewhere
CONTEXT_LEVELS = (SPOT, CENTRE, REGION)  # have tokens beside the pooled feature; imported ones have one token a patch
SIZE_CONFLICT = 0.01  # stated sizes of a patch further apart than this contradict each other


@dataclass(frozen=True)
class Imported:
    """What an import did: rows matched, and the sizes that should be equal for features to mean what they should.

    offset_um is the mean distance of a row's centre to the centre of its patch.
    """

    path: Path
    rows: int
    patches: int
    width: int
    offset_um: float
    patch_um: float
    level_patch_um: float
    changed: bool


def import_features(
    path: Path, store: Store, *, slide_id: str, level: str, backbone: str, patch_px: float | None = None
) -> Imported:
    """Match the patches of an h5 file to the rows of a level and store their features under `backbone`.

    `patch_px` is the side of a patch in level-0 pixels, needed where the file does not state it. Levels imported before
    under the same name are kept. Raises MagnetError where a row has no patch, or its level has other features.
    """
    patches = read_feature_h5(path)
    side_px = _side_px(path, patches, patch_px)
    with store.geometry(slide_id) as geometry:
        facts = look_up(geometry.header["levels"], level, where=f"{slide_id}: --level")
        mpp, geometry_digest = geometry.header["mpp"], geometry.header["digest"]
        centres_um = geometry.read(f"{level}/centres_um")
    rows, offset_um = match_rows(centres_um, (patches.corners_px + side_px / 2) * mpp, side_um=side_px * mpp, what=path)
    pooled = _as_float16(path, patches.features[rows])

    earlier = _imported_before(store, slide_id, backbone, geometry_digest)
    levels = {} if earlier is None else _levels_of(earlier)
    source = {"content": _content_digest(pooled), "patch_um": side_px * mpp, "width": pooled.shape[1]}
    imported_source = levels.get(level, source)
    if imported_source != source:
        raise MagnetError(
            f"{slide_id}, level '{level}', backbone '{backbone}'",
            expected="no other features",
            found="other ones, imported before",
            remedy=f"import under another --backbone name, or delete {earlier.path if earlier else path} first",
        )
    changed = level not in levels
    header = _header(backbone, {**levels, level: source}, geometry_digest)
    target = store.features_path(slide_id, backbone, header["digest"])
    if changed:
        _write(target, header, {level: pooled}, earlier)
    return Imported(
        target, len(rows), len(patches.features), pooled.shape[1], offset_um, side_px * mpp, facts["patch_um"], changed
    )


def match_rows(
    centres_um: np.ndarray, patch_centres_um: np.ndarray, *, side_um: float, what: object
) -> tuple[np.ndarray, float]:
    """Return the patch of each row (N,), centres within half a patch along both axes, and their mean distance in µm."""
    distance_um, rows = cKDTree(patch_centres_um).query(centres_um, p=np.inf)
    unmatched = distance_um > side_um / 2
    if unmatched.any():
        raise MagnetError(
            what,
            expected=f"a patch of {side_um:.1f} µm around each of the level's {len(centres_um)} rows",
            found=f"none for {int(unmatched.sum())} of them (nearest up to {distance_um.max():.0f} µm away, "
            f"{len(patch_centres_um)} patches)",
            remedy="check slide, level and patch size; patches must cover all rows of the level",
        )
    return rows, float(np.hypot(*(patch_centres_um[rows] - centres_um).T).mean())


def export_features(store: Store, to: Path, *, slide_id: str, level: str, backbone: str | None = None) -> int:
    """Write the pooled features of a level as h5 in TRIDENT's convention; return the number of rows."""
    with store.geometry(slide_id) as geometry, ArrayFile(choose_features(store, slide_id, backbone).path) as features:
        facts = look_up(geometry.header["levels"], level, where=f"{slide_id}: --level")
        mpp, side_px = geometry.header["mpp"], facts["patch_um"] / geometry.header["mpp"]
        corners_px = geometry.read(f"{level}/centres_um") / mpp - side_px / 2
        pooled = features.read(f"{level}/pooled").astype(np.float32)
        attributes = {
            "name": slide_id,
            "level0_mpp": mpp,
            "encoder": features.header["backbone"],
            "settings_digest": features.header["settings_digest"],
            "level": level,
        }
    write_feature_h5(to, PatchFeatures(pooled, corners_px, side_px), attributes=attributes)
    return len(pooled)


def choose_features(store: Store, slide_id: str, backbone: str | None) -> FeatureFile:
    """Return the slide's feature file of a backbone; without a name, its only one."""
    files = store.fitting_files(slide_id)
    chosen = [file for file in files if backbone in (None, file.backbone)]
    if len(chosen) == 1:
        return chosen[0]
    raise MagnetError(
        f"{store.root}: {slide_id}",
        expected="one feature file" if backbone is None else f"one feature file of '{backbone}'",
        found=", ".join(file.path.name for file in chosen or files) or "none",
        remedy="name it with --backbone" if files else "run 'extract run' first",
    )


def _side_px(path: Path, patches: PatchFeatures, stated_px: float | None) -> float:
    if stated_px is not None and not 0 < stated_px <= MOST_PX:
        raise MagnetError("--patch-px", expected="pixels above 0", found=f"{stated_px:g}", remedy="correct it")
    if stated_px is None and patches.patch_px is None:
        raise MagnetError(
            path,
            expected="the size of a patch in the attributes of 'coords' (patch_size_level0)",
            found="none",
            remedy="state it: --patch-px N in pixels of the level they were read from, --patch-level-mpp M its µm/px",
        )
    if stated_px is None or patches.patch_px is None:
        return stated_px or patches.patch_px or 0.0
    if abs(stated_px / patches.patch_px - 1) > SIZE_CONFLICT:
        raise MagnetError(
            path,
            expected=f"patches of {stated_px:.1f} level-0 px, as stated",
            found=f"{patches.patch_px:.1f} in the attributes of 'coords'",
            remedy="leave --patch-px out",
        )
    return stated_px


def _as_float16(path: Path, features: np.ndarray) -> np.ndarray:
    limit = float(np.finfo(np.float16).max)
    if not (np.abs(features) <= limit).all():
        raise MagnetError(
            path,
            expected="features within the range of float16 (±65,504)",
            found="larger, infinite or undefined values",
            remedy="check how the features were made",
        )
    return features.astype(np.float16)


def _imported_before(store: Store, slide_id: str, backbone: str, geometry_digest: str) -> FeatureFile | None:
    """Find the file that earlier imports under this name have made; a file that we extracted is an error."""
    for file in store.feature_files(slide_id):
        if file.backbone != backbone:
            continue
        with ArrayFile(file.path) as features:
            header = features.header
        if header["weights"]["source"] != IMPORTED:
            raise MagnetError(
                f"{slide_id}, backbone '{backbone}'",
                expected="a name of its own for imported features",
                found=f"{file.path.name}, which 'extract run' has made",
                remedy=f"choose another --backbone, such as '{backbone}-imported'",
            )
        if header["geometry_digest"] == geometry_digest:
            return file
    return None


def _levels_of(file: FeatureFile) -> dict[str, Any]:
    with ArrayFile(file.path) as features:
        levels: dict[str, Any] = features.header["imported"]
        return levels


def _header(backbone: str, levels: Mapping[str, Any], geometry_digest: str) -> dict[str, Any]:
    """Return a header like that of extracted features; slides imported in the same way have the same `settings`."""
    settings = {
        "schema": CONTENT_VERSION,
        "backbone": backbone,
        "token_grid": 1,
        "weights_sha256": None,
        "imported_levels": {name: {"width": facts["width"]} for name, facts in levels.items()},
    }
    return {
        "kind": "features",
        "backbone": backbone,
        "weights": {"source": IMPORTED, "seed": 0},
        "settings": settings,
        "settings_digest": digest(settings),
        "geometry_digest": geometry_digest,
        "imported": dict(levels),
        "digest": digest({"settings": settings, "geometry_digest": geometry_digest, "levels": levels}),
    }


def _write(
    target: Path, header: Mapping[str, Any], pooled: Mapping[str, np.ndarray], earlier: FeatureFile | None
) -> None:
    """Write the new level and those of the earlier file, which is removed when the new file is whole."""
    with ArrayWriter(target, header) as writer:
        for level, values in pooled.items():
            writer.put(f"{level}/pooled", values)
            if level in CONTEXT_LEVELS:
                writer.put(f"{level}/tokens", values[:, None])  # (N,D) -> (N,T=1,D)
        if earlier is not None:
            with ArrayFile(earlier.path) as features:
                for name in features.names():
                    writer.put(name, features.read(name))
        writer.commit()
    if earlier is not None:
        earlier.path.unlink()


def _content_digest(values: np.ndarray) -> str:
    return xxhash.xxh3_128_hexdigest(np.ascontiguousarray(values).data)

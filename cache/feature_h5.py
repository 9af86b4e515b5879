"""Patch features as other tools write them: h5 files of TRIDENT, CLAM and HEST, read and written.

In, out: `features` (M, D), in some tools (1, M, D) or named `embeddings`; `coords` (M, 2), the top-left corner (x, y)
of each patch in level-0 pixels; attributes of `coords` that state the size of a patch, or none.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np

from magnet_core.checked_h5 import check_h5
from magnet_core.errors import MagnetError
from magnet_core.hdf5 import replacing_hdf5

# M patches, D features

FEATURE_NAMES = ("features", "embeddings")
SIZES = ("patch_size_level0", "patch_size", "patch_level", "downsample")  # attributes that tell the size of a patch
MOST_PX = 1e7  # of a place or a size, in pixels; no image is as large
EXPECTED, REMEDY = "an h5 file with 'features' and 'coords'", "export it again with TRIDENT, CLAM or HEST"


@dataclass(frozen=True)
class PatchFeatures:
    """Features (M, D) of M patches, their top-left corners (M, 2), and their side, in level-0 px (None: not stated)."""

    features: np.ndarray
    corners_px: np.ndarray
    patch_px: float | None


def read_feature_h5(path: Path) -> PatchFeatures:
    """Read a file of patch features; one that is malformed is a `MagnetError`."""
    check_h5(path, ("features?", "embeddings?", "coords"), expected=EXPECTED, remedy=REMEDY)
    try:
        with h5py.File(path, "r") as file:
            name = next((name for name in FEATURE_NAMES if name in file), FEATURE_NAMES[0])
            features, corners_px = file[name][...], file["coords"][...]
            owners = (file.attrs, file["coords"].attrs)
            attributes = {size: owner[size] for owner in owners for size in SIZES if size in owner}
    except (OSError, KeyError, TypeError, ValueError, RuntimeError) as error:  # all of them from h5py
        raise MagnetError(path, expected=EXPECTED, found=str(error), remedy=REMEDY) from error
    features, corners_px = _without_batch_axis(features), _without_batch_axis(corners_px)
    fits = features.ndim == 2 and features.dtype.kind == "f" and corners_px.shape == (len(features), 2)
    if not fits or features.size == 0 or corners_px.dtype.kind not in "iuf":
        raise MagnetError(
            path,
            expected="features (M, D) and coords (M, 2) of the same M patches",
            found=f"features {features.shape} of {features.dtype} and coords {corners_px.shape}",
            remedy="features of whole slides cannot be imported: export those of patches",
        )
    corners_px = corners_px.astype(np.float64)
    if not (np.abs(corners_px) <= MOST_PX).all():
        raise MagnetError(
            path,
            expected=f"coords in level-0 pixels, up to {MOST_PX:,.0f}",
            found="some that are larger, infinite or undefined",
            remedy=REMEDY,
        )
    return PatchFeatures(features, corners_px, _checked_size(path, _patch_px(attributes)))


def write_feature_h5(path: Path, patches: PatchFeatures, *, attributes: Mapping[str, object]) -> None:
    """Write features and coords in TRIDENT's convention; `attributes` go beside `patch_size_level0`."""
    with replacing_hdf5(path) as file:
        file["features"] = patches.features
        file["coords"] = np.round(patches.corners_px).astype(np.int64)
        if patches.patch_px is not None:
            file["coords"].attrs["patch_size_level0"] = round(patches.patch_px)
        for name, value in attributes.items():
            file["coords"].attrs[name] = value


def _without_batch_axis(values: np.ndarray) -> np.ndarray:
    return values[0] if values.ndim == 3 and len(values) == 1 else values


def _checked_size(path: Path, patch_px: float | None) -> float | None:
    if patch_px is not None and not 0 < patch_px <= MOST_PX:
        raise MagnetError(
            path,
            expected="the side of a patch in pixels in the attributes of 'coords'",
            found=f"{patch_px:g}",
            remedy=REMEDY,
        )
    return patch_px


def _patch_px(attributes: Mapping[str, object]) -> float | None:
    """Side of a patch in level-0 pixels, where the attributes tell it without doubt."""
    if "patch_size_level0" in attributes:  # TRIDENT
        return _number(attributes["patch_size_level0"])
    side_px = _number(attributes.get("patch_size"))
    level = _number(attributes.get("patch_level"))  # CLAM: pixels of this level
    if side_px is None or level is None:
        return None
    if level == 0:
        return side_px
    downsample = _number(attributes.get("downsample"))
    return None if downsample is None else side_px * downsample


def _number(value: object) -> float | None:
    """First number of an attribute, which may be a scalar or a pair."""
    numbers = np.atleast_1d(np.asarray(value))
    return float(numbers[0]) if numbers.size and numbers.dtype.kind in "iuf" else None

"""How the features that a run was trained on were made: as the run records it, else as its store does.

In: a run's folder and description. Out: a `StageOne`. Imports nothing slow.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cache.reader import ArrayFile
from cache.store import Store
from magnet_core.errors import MagnetError
from train.learning.stage_one import StageOne
from train.places import RUN, anew


def stage_one_of(run: Path, description: Mapping[str, Any], store: Path | None) -> StageOne:
    """Return how a run's features were made; `store` is the training store, where that has moved."""
    if recorded := description.get("stage_one"):
        try:
            return StageOne.from_plain(recorded)
        except (LookupError, TypeError) as error:
            expected, found = "how its features were made", f"{type(error).__name__}: {error}"
            raise MagnetError(run / RUN, expected=expected, found=found, remedy=anew(run / RUN)) from error
    data = description["config"]["data"]
    root = store or Path(data["store"])
    settings_digest = description.get("features_settings_digest") or data.get("settings_digest", "")
    made = _in_store(root, data["backbone"], settings_digest) if (root / "store.json").is_file() else {}
    if len(made) == 1 and (stage_one := next(iter(made.values()))) is not None:
        return stage_one
    raise MagnetError(
        run,
        expected=f"in its description, or in its training store at {root}, how its features were made",
        found=f"{len(made)} sets of settings" if len(made) > 1 else "imported ones" if made else "neither",
        remedy="name its training store with --store; or extract the slide, and predict it with --slide",
    )


def _in_store(root: Path, backbone: str, settings_digest: str) -> dict[str, StageOne | None]:
    """How a store's features of a backbone were made, by settings digest; one alone where that is known."""
    store = Store(root)
    made: dict[str, StageOne | None] = {}
    for slide_id in store.slide_ids():
        for file in store.fitting_files(slide_id):
            is_meant = file.backbone == backbone and settings_digest in ("", file.settings_digest)
            if is_meant and file.settings_digest not in made:
                with store.geometry(slide_id) as geometry, ArrayFile(file.path) as features:
                    laid_with = geometry.header.get("settings", {})
                    made[file.settings_digest] = StageOne.of(laid_with, features.header)
    return made

"""Whether runs learnt from a slide that they are to predict, so that its agreement says little of others.

In: runs, and a slide's id and image. Out: the runs that saw its labels in training. A slide is known by its name or,
where the store of training is still there, by its image's fingerprint, under whatever name.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from cache.store import Store
from train.places import CELL, read_result
from train.predict.members import Member


def runs_that_learnt(members: Sequence[Member], slide_id: str, geometry_header: Mapping[str, Any]) -> list[Path]:
    """Return the folders of the runs that learnt from a slide; a run that does not record what from is none."""
    image = geometry_header.get("settings", {}).get("image")
    return [
        member.folder
        for member in members
        if slide_id in (learnt := _learnt_slides(member.folder))
        or image is not None
        and image in _images(Path(member.description["config"]["data"]["store"]), learnt)
    ]


def _learnt_slides(run: Path) -> list[str]:
    path = run / CELL
    return list(read_result(path).get("fold", {}).get("train", [])) if path.is_file() else []


def _images(root: Path, slide_ids: Sequence[str]) -> set[str]:
    """Fingerprints of the images of a store's slides, as far as it is there and has them."""
    if not (root / "store.json").is_file():
        return set()
    store, images = Store(root), set[str]()
    for slide_id in set(slide_ids) & set(store.slide_ids()):
        with store.geometry(slide_id) as geometry:
            images.add(geometry.header.get("settings", {}).get("image", ""))
    return images - {""}

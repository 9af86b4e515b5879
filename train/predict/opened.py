"""A slide that is to be predicted, wherever its features are from."""

from collections.abc import Sequence
from dataclasses import dataclass

from cache.picture import Picture
from train.data.slide import Slide


@dataclass(frozen=True)
class Opened:
    """A slide as each run sees it, one after the other, and its picture, where there is one."""

    slides: Sequence[Slide]
    picture: Picture | None = None

"""What a command asks of a study. Imports nothing that takes long."""

from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path


class Study(StrEnum):
    """The paper's tables."""

    BASELINES = "baselines"
    BLOCKS = "blocks"
    LEVELS = "levels"
    BACKBONES = "backbones"


@dataclass(frozen=True)
class StudyRequest:
    """What `train study` and `train cv` have in common; None and () where nothing is said.

    settings  of --set
    finetune  whether encoders are trained
    """

    store: Path | None
    runs: Path | None
    backbone: str | None
    device: str | None
    recipe: Path | None
    settings: tuple[str, ...]
    protocol: str
    finetune: bool
    folds: tuple[int, ...] | None
    genes: tuple[str, ...]
    published: bool = False

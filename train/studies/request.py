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


USUAL_TARGETS = {Study.BASELINES: (8, 16, 55), Study.BLOCKS: (16,), Study.LEVELS: (8,), Study.BACKBONES: (8, 16, 55)}
USUAL_BACKBONES = ("resnet50", "uni")


@dataclass(frozen=True)
class StudyRequest:
    """The options that `train study` and `train cv` share; None and () stand for options that were not given.

    settings  of --set
    finetune  whether encoders are trained; None leaves it to the settings
    """

    store: Path | None
    runs: Path | None
    backbone: str | None
    device: str | None
    recipe: Path | None
    settings: tuple[str, ...]
    protocol: str
    finetune: bool | None
    folds: tuple[int, ...] | None
    genes: tuple[str, ...]
    published: bool = False
    seeds: int | None = None

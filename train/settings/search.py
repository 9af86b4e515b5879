"""Settings of how the space of a sweep is searched: the table `[search]` of its file."""

from typing import ClassVar, Literal

from pydantic import Field

from magnet_core.settings import Settings
from magnet_core.settings.limits import MOST_EPOCHS


class SearchConfig(Settings):
    """How the space is searched.

    sampler        tpe (Bergstra et al. 2011) or random
    pruner         stops trials that lag: median of the others at the same epoch, asha (Li et al. 2020), or none
    seed           of the sampler; the trials' own seed is the setting `seed`
    startup        random trials before tpe begins, and whole trials before median compares
    warmup_epochs  epochs that every trial is given
    reduction      of asha: one in so many goes on from each rung, and the rungs lie so many times apart
    """

    table: ClassVar[str] = "search"

    sampler: Literal["tpe", "random"] = "tpe"
    pruner: Literal["median", "asha", "none"] = "median"
    seed: int = Field(default=0, ge=0)
    startup: int = Field(default=8, ge=1, le=MOST_EPOCHS)
    warmup_epochs: int = Field(default=1, ge=1, le=MOST_EPOCHS)
    reduction: int = Field(default=3, ge=2, le=MOST_EPOCHS)

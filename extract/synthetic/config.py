"""Options of the synthetic data set: `SynthConfig`, checked where it is built."""

import math
from typing import Self

from pydantic import Field, model_validator

from magnet_core.errors import MagnetError
from magnet_core.settings import Settings
from magnet_core.units import WORKING_MPP

MIN_SIZE_MM, MAX_SIZE_MM = 0.4, 7.0  # the smallest that holds every domain; a little above a real capture area
MIN_GENES = 40  # each class of genes keeps some


class SynthConfig(Settings):
    """What `synthesise` makes. Equal configs give equal data sets.

    slides       number of slides, S1, S2, …
    seed         everything random follows from it
    size_mm      side of the imaged square (a real Visium HD capture area has 6.5 mm)
    genes        number of genes; two antibody rows come on top
    patients     number of patients, slides dealt out in turn; None: one per slide, two slides each above four
    mpp          µm/px of the image
    rotation_deg turn of the bin grid against the image
    umi_per_bin  median expected UMI count of an 8 µm bin in tissue
    dispersion   of the negative binomial: variance = mean + dispersion · mean²
    capture_sd   sd of the log of each bin's capture efficiency, which nothing in the image tells
    """

    slides: int = Field(default=4, ge=1, le=999)
    seed: int = Field(default=0, ge=0, le=2**32 - 1)
    size_mm: float = Field(default=2.0, ge=MIN_SIZE_MM, le=MAX_SIZE_MM)
    genes: int = Field(default=1000, ge=MIN_GENES, le=30_000)
    patients: int | None = Field(default=None, ge=1, le=999)
    mpp: float = Field(default=WORKING_MPP, ge=0.1, le=2.0)
    rotation_deg: float = Field(default=0.3, ge=-2.0, le=2.0)
    umi_per_bin: float = Field(default=100.0, ge=1.0, le=10_000.0)
    dispersion: float = Field(default=0.2, ge=1e-3, le=10.0)
    capture_sd: float = Field(default=0.2, ge=0.0, le=1.0)

    @model_validator(mode="after")
    def _no_more_patients_than_slides(self) -> Self:
        if self.patients is not None and self.patients > self.slides:
            raise MagnetError(
                "patients",
                expected=f"1 to {self.slides}",
                found=str(self.patients),
                remedy="name fewer, or more slides",
            )
        return self

    @property
    def side_um(self) -> float:
        """Side of the imaged square in µm, a whole number of pixels."""
        return self.side_px * self.mpp

    @property
    def side_px(self) -> int:
        """Side of the image in pixels, a multiple of 16 so that pyramid levels divide without rest."""
        return round(self.size_mm * 1000 / self.mpp) // 16 * 16

    @property
    def slide_ids(self) -> list[str]:
        """Names of the slides, in order."""
        return [f"S{number}" for number in range(1, self.slides + 1)]

    def patient_of(self, slide_id: str) -> str:
        """Name of the patient a slide was taken from."""
        default = self.slides if self.slides <= 4 else math.ceil(self.slides / 2)
        return f"P{self.slide_ids.index(slide_id) % (self.patients or default) + 1}"

"""Options of the synthetic data set: `SynthConfig`, checked where it is built."""

import math
from dataclasses import dataclass

from magnet_core.errors import MagnetError
from magnet_core.units import WORKING_MPP

MIN_SIZE_MM, MAX_SIZE_MM = 0.4, 7.0  # the smallest that holds every domain; a little above a real capture area
MIN_GENES = 40  # each class of genes keeps some


@dataclass(frozen=True)
class SynthConfig:
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

    slides: int = 4
    seed: int = 0
    size_mm: float = 2.0
    genes: int = 1000
    patients: int | None = None
    mpp: float = WORKING_MPP
    rotation_deg: float = 0.3
    umi_per_bin: float = 100.0
    dispersion: float = 0.2
    capture_sd: float = 0.2

    def __post_init__(self) -> None:
        _within("slides", self.slides, 1, 999)
        _within("seed", self.seed, 0, 2**32 - 1)
        _within("size_mm", self.size_mm, MIN_SIZE_MM, MAX_SIZE_MM)
        _within("genes", self.genes, MIN_GENES, 30_000)
        _within("mpp", self.mpp, 0.1, 2.0)
        _within("rotation_deg", self.rotation_deg, -2.0, 2.0)
        _within("umi_per_bin", self.umi_per_bin, 1.0, 10_000.0)
        _within("dispersion", self.dispersion, 1e-3, 10.0)
        _within("capture_sd", self.capture_sd, 0.0, 1.0)
        if self.patients is not None:
            _within("patients", self.patients, 1, self.slides)

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


def _within(name: str, value: float, low: float, high: float) -> None:
    if not low <= value <= high:
        raise MagnetError(
            f"SynthConfig.{name}",
            expected=f"a value from {low:g} to {high:g}",
            found=f"{value:g}",
            remedy=f"choose another {name}",
        )

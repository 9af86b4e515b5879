"""The µm/px of a slide: never guessed. samples.csv, else the platform, else the slide's own metadata, else an error."""

from dataclasses import dataclass

from magnet_core.errors import MagnetError
from magnet_core.records import Sample, SlideCounts
from magnet_core.slides import Slide

_TOLERANCE = 0.05  # two statements further apart than this contradict each other


@dataclass(frozen=True)
class Resolution:
    """µm/px of level 0, and who says so."""

    mpp: float
    source: str


def resolve_mpp(sample: Sample, slide: Slide, counts: SlideCounts | None) -> Resolution:
    """Return the first statement of the slide's µm/px; statements that differ by more than 5 % are an error."""
    stated = [
        Resolution(mpp, source)
        for mpp, source in (
            (sample.mpp, "samples.csv"),
            (counts.mpp if counts else None, counts.mpp_source if counts else ""),
            (slide.mpp, slide.mpp_source),
        )
        if mpp is not None
    ]
    if not stated:
        hint = f" ({counts.mpp_source})" if counts and counts.mpp_source else ""
        raise MagnetError(
            f"slide '{sample.slide_id}'",
            expected="its µm/px in samples.csv, from the platform or in the image's metadata",
            found=f"none of them{hint}",
            remedy="write it into the column 'mpp' of samples.csv",
        )
    first = stated[0]
    for other in stated[1:]:
        if sample.mpp is None and abs(other.mpp / first.mpp - 1) > _TOLERANCE:
            raise MagnetError(
                f"slide '{sample.slide_id}'",
                expected="one µm/px",
                found=f"{first.mpp:.4f} from {first.source} and {other.mpp:.4f} from {other.source}",
                remedy="write the right one into the column 'mpp' of samples.csv",
            )
    return first

"""The µm/px of a slide: never guessed. samples.csv, else the platform, else the slide's own metadata, else an error."""

from dataclasses import dataclass

from magnet_core.errors import MagnetError
from magnet_core.records import SHEET, Sample, SlideCounts
from magnet_core.slides import SlideImage
from magnet_core.units import WORKING_MPP

_TOLERANCE = 0.05  # two statements further apart than this contradict each other
MAGNIFIED = 10.0  # µm/px of a scan at 1×, as scanners count
_COARSE = 1.2  # times coarser than what encoders see; scanners at 40× lie below it


@dataclass(frozen=True)
class ResolvedMpp:
    """µm/px of level 0, and who says so."""

    mpp: float
    source: str


def stated_mpp(sample: Sample, slide: SlideImage, counts: SlideCounts | None) -> tuple[ResolvedMpp, ...]:
    """Every statement of the slide's µm/px, in the order in which they are believed."""
    statements = (
        (sample.mpp, sample.mpp_place),
        (counts.mpp if counts else None, counts.mpp_source if counts else ""),
        (slide.mpp, slide.mpp_source),
    )
    return tuple(ResolvedMpp(mpp, source) for mpp, source in statements if mpp is not None)


def resolve_mpp(sample: Sample, slide: SlideImage, counts: SlideCounts | None) -> ResolvedMpp:
    """Return the first statement of the slide's µm/px.

    Statements that differ from it by more than 5 % are an error, unless the user overrides them.
    """
    stated = stated_mpp(sample, slide, counts)
    if not stated:
        hints = [hint for hint in (counts.mpp_source if counts else "", slide.mpp_source) if hint]
        raise MagnetError(
            f"slide '{sample.slide_id}'",
            expected=f"its µm/px in {sample.mpp_place}, from the platform or in the image's metadata",
            found=f"none of them ({'; '.join(hints)})",
            remedy=f"write it {_place(sample)}",
        )
    first = stated[0]
    in_conflict = any(abs(other.mpp / first.mpp - 1) > _TOLERANCE for other in stated)
    if in_conflict and not sample.mpp_overrides:
        raise MagnetError(
            f"slide '{sample.slide_id}'",
            expected=f"one µm/px, within {_TOLERANCE:.0%}",
            found=" and ".join(f"{each.mpp:.4f} from {each.source}" for each in stated),
            remedy=(
                "check that image and counts belong together; to override what the files state, write the right one "
                f"with a '!' {_place(sample)}, such as {first.mpp:.4g}!"
            ),
        )
    return first


def _place(sample: Sample) -> str:
    return f"into the column 'mpp' of {SHEET}" if sample.mpp_place == SHEET else f"after {sample.mpp_place}"


def enlarging(mpp: float, working_mpp: float = WORKING_MPP) -> str | None:
    """Say that a slide is coarser than what encoders see, and by how much; None where it is fine enough."""
    factor = mpp / working_mpp
    if factor <= _COARSE:
        return None
    return (
        f"the slide's {mpp:.4g} µm/px are enlarged {factor:.2g} times to the {working_mpp:g} µm/px that encoders see: "
        f"finer detail is interpolated, not measured; a scan at {MAGNIFIED / working_mpp:.0f}× has it"
    )

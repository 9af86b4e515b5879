"""Seconds a patch or a bin takes on a device, and whether they were measured.

In: a device, a part of the work, a backbone, the side of a patch. Out: a `Pace`, measured where a rate of just that is
known; else carried over from a measured encoder by their operations a patch; else simulated, a GPU's stated peak times
an assumed utilisation.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from magnet_core.forecast.flops import patch_flops
from magnet_core.forecast.rates import (
    CORE,
    ENCODING,
    FROZEN,
    LAUNCH_SECONDS,
    MEASURED,
    STEP_OVER_ENCODER,
    TRAINING_PASSES,
    TUNED,
    UTILISATION,
    Gpu,
    Rate,
)

KINDS = ("measured", "carried over", "simulated")  # from what is known to what is assumed


@dataclass(frozen=True)
class Pace:
    """Seconds that one takes, and which of `KINDS` they are."""

    seconds: float
    kind: str


def weakest(kinds: Iterable[str]) -> str:
    """Of several kinds, the one that is known least."""
    return max(kinds, key=KINDS.index)


def on_core(part: str, backbone: str, side_px: int) -> Pace:
    """Processor seconds on one core."""
    pace = known(MEASURED, part, backbone, side_px)
    assert pace is not None  # a test has every part in the table
    return pace


def on_gpu(gpu: Gpu, part: str, backbone: str, side_px: int, *, batch: int = 1) -> Pace:
    """Seconds on a GPU; a step of training has `batch` bins."""
    if pace := known(gpu.rates, part, backbone, side_px):
        return pace
    launching = 0.0 if part == ENCODING else LAUNCH_SECONDS / batch
    passes = {ENCODING: 1.0, TUNED: TRAINING_PASSES * STEP_OVER_ENCODER, FROZEN: 0.0}[part]
    encoding = passes and passes * patch_flops(backbone, side_px) / (gpu.peak_tflops * 1e12 * UTILISATION)
    return Pace(encoding + launching, "simulated")


def known(rates: Sequence[Rate], part: str, backbone: str, side_px: int) -> Pace | None:
    """Return what the rates of a device tell; None where they have nothing of this part.

    A frozen step runs no encoder: that of one backbone is taken for all.
    """
    of_part = [rate for rate in rates if rate.part == part]
    of_part.sort(key=lambda rate: (rate.backbone != backbone, abs(rate.patch_px - side_px)))
    if not of_part:
        return None
    nearest = of_part[0]
    same = nearest.backbone == backbone and (nearest.patch_px == side_px or part == FROZEN)
    if same or part == FROZEN:
        return Pace(1 / nearest.rate_per_s, "measured" if same else "carried over")
    more = patch_flops(backbone, side_px) / patch_flops(nearest.backbone, nearest.patch_px)
    return Pace(more / nearest.rate_per_s, "carried over")


def host_seconds(part: str, rates: Sequence[Rate] = ()) -> float:
    """Seconds of one processor core for a unit of decoding or handling, by these rates, else as it was measured."""
    return next(1 / rate.rate_per_s for rate in (*rates, *MEASURED) if rate.part == part)


def origins(gpu: Gpu, parts: Sequence[str], backbones: Sequence[str], side_px: int) -> list[str]:
    """Say of each kind of pace where it comes from."""
    lines = [f"measured: on {CORE}, resnet50; rates and their files: docs/plan.md"]
    if gpu.rates:
        lines.append(f"measured: on {gpu.title}, by the file of --rates, for the parts and backbones that it has")
    counted = ", ".join(f"{name} {patch_flops(name, side_px) / 1e9:,.1f} GFLOP" for name in backbones)
    lines.append(f"carried over: from a measured encoder by operations a patch, counted at {side_px} px: {counted}")
    if any(not any(rate.part == part for rate in gpu.rates) for part in parts):
        step = "" if parts == (ENCODING,) else f", and {LAUNCH_SECONDS * 1000:.0f} ms a step outside the encoder"
        lines.append(
            f"simulated: not measured on any GPU; {gpu.peak_tflops:.0f} TFLOP/s (bf16, dense, as its maker states) at "
            f"an assumed {UTILISATION:.0%}{step}; --rates FILE replaces it"
        )
    return lines

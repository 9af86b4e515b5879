"""How fast things go: what was measured, what a file of the user's brings, and what is assumed of a GPU.

MEASURED    on one processor core, by `benchmarks/bench_rates.py` (results/rates.json) and, decoding and handling, by
            `bench_predict.py` (results/predict.json, its largest slide); a test compares it with both files
--rates     a JSON list of rows like {"part": "stage-one", "backbone": "resnet50", "rate_per_s": 1234.0, "unit":
            "patches", "device": "NVIDIA …", "patch_px": 224}. Parts are those of `UNITS`; `patch_px` is 224 where it
            is not said, and rows of other parts, or without one, are passed over
GPUS        peaks as their maker states them; which share of a peak is reached is assumed, and said wherever it counts

Imports nothing that takes long: help lists the GPUs.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from magnet_core.errors import MagnetError
from magnet_core.sealed import read_json

ENCODING, TUNED, FROZEN = "stage-one", "stage-two", "frozen"  # of one device; as `bench_gpu.py` names its parts
# Of one processor core: reading the counts of all bins and laying levels; decoding the slide; all else of a patch.
LAYING, DECODING, HANDLING = "laying", "decoding", "handling"
UNITS = {ENCODING: "patches", TUNED: "bins", FROZEN: "bins"}
UNITS |= {LAYING: "bins", DECODING: "megapixels", HANDLING: "patches"}
REMEDY = "give the rows of a benchmark, such as benchmarks/results/rates.json"


class Rate(BaseModel):
    """One rate: so many of a unit a second, of a part of the work on a device."""

    model_config = ConfigDict(frozen=True, extra="ignore", allow_inf_nan=False)

    part: str
    rate_per_s: float = Field(gt=0)
    unit: str
    device: str
    backbone: str = ""
    patch_px: int = Field(default=224, gt=0)


@dataclass(frozen=True)
class Gpu:
    """A GPU, its dense peak in bf16 in TFLOP/s, and what was measured on it."""

    title: str
    peak_tflops: float
    rates: tuple[Rate, ...] = ()


CORE = "one core of an x86-64 processor"
MEASURED = (
    Rate(part=ENCODING, backbone="resnet50", patch_px=112, rate_per_s=32.17, unit="patches", device=CORE),
    Rate(part=ENCODING, backbone="resnet50", patch_px=224, rate_per_s=9.46, unit="patches", device=CORE),
    Rate(part=ENCODING, backbone="resnet50", patch_px=512, rate_per_s=1.772, unit="patches", device=CORE),
    Rate(part=TUNED, backbone="resnet50", patch_px=112, rate_per_s=11.92, unit="bins", device=CORE),
    Rate(part=FROZEN, backbone="resnet50", patch_px=112, rate_per_s=1468.0, unit="bins", device=CORE),
    Rate(part=LAYING, rate_per_s=24770.0, unit="bins", device=CORE),
    Rate(part=DECODING, rate_per_s=58.4, unit="megapixels", device=CORE),
    Rate(part=HANDLING, rate_per_s=7460.0, unit="patches", device=CORE),
)
PASS_OVER_LIMIT = 1.085  # a run ÷ the slowest of its parts; the larger of the two in benchmarks/results/extract.json
STEP_OVER_ENCODER = 1.024  # a fine-tuned step ÷ the encoder alone; benchmarks/results/train.json

GPUS: Mapping[str, Gpu] = {
    "a100": Gpu("NVIDIA A100", 312),
    "l40s": Gpu("NVIDIA L40S", 362),
    "h100": Gpu("NVIDIA H100", 989),
    "h200": Gpu("NVIDIA H200", 989),
}
UTILISATION = 0.3  # of a GPU's peak by an encoder; assumed
LAUNCH_SECONDS = 0.01  # of a step outside the encoder: hundreds of small kernels, each started by the host; assumed
TRAINING_PASSES = 3  # a pass forward and back, in passes forward: each matrix is multiplied once, then twice more


def read_rates(path: Path) -> tuple[Rate, ...]:
    """Read the rows of a file that `--rates` names; a file without any that counts is refused."""
    expected = "a JSON list of rows with part, rate_per_s, unit and device"
    rows = read_json(path, expected=expected, remedy=REMEDY)
    rows = [row for row in rows if isinstance(row, dict) and "rate_per_s" in row] if isinstance(rows, list) else []
    known = [row for row in rows if row.get("part") in UNITS]
    if not known:
        found = f"no rate of {', '.join(UNITS)}"
        raise MagnetError(path, expected=expected, found=found, remedy=REMEDY)
    try:
        rates = tuple(Rate.model_validate(row) for row in known)
    except ValidationError as error:
        fault = error.errors(include_url=False)[0]
        found = f"{fault['loc'][0]}: {fault['msg']}"
        raise MagnetError(path, expected=expected, found=found, remedy=REMEDY) from error
    for rate in rates:
        if rate.unit != UNITS[rate.part]:
            expected = f"{UNITS[rate.part]} as unit of {rate.part}"
            raise MagnetError(path, expected=expected, found=f"'{rate.unit}'", remedy=REMEDY)
    return rates

"""Rates that are shipped are those that were measured; a pace says whether it was measured, and files replace it."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from magnet_core.errors import MagnetError
from magnet_core.forecast.flops import patch_flops
from magnet_core.forecast.options import budget_of
from magnet_core.forecast.pace import on_core, on_gpu, weakest
from magnet_core.forecast.rates import (
    DECODING,
    ENCODING,
    FROZEN,
    GPUS,
    HANDLING,
    MEASURED,
    PASS_OVER_LIMIT,
    STEP_OVER_ENCODER,
    TUNED,
    UNITS,
    Rate,
    read_rates,
)
from magnet_core.units import WORKING_MPP

RESULTS = Path(__file__).resolve().parents[2] / "benchmarks" / "results"


def results(name: str) -> list[dict[str, float]]:
    return list(json.loads((RESULTS / name).read_text(encoding="utf-8")))


def test_the_rates_that_are_shipped_are_those_of_the_benchmarks() -> None:
    assert {rate.part for rate in MEASURED} == UNITS.keys()
    of_file = [rate for rate in MEASURED if rate.part not in (DECODING, HANDLING)]
    assert sorted(of_file, key=str) == sorted(map(Rate.model_validate, results("rates.json")), key=str)

    largest = max((row for row in results("predict.json") if "bins" in row), key=lambda row: row["bins"])
    side_um = largest["bins"] ** 0.5 * 8
    shipped = {rate.part: rate.rate_per_s for rate in MEASURED}
    assert shipped[DECODING] == pytest.approx((side_um / WORKING_MPP) ** 2 / 1e6 / largest["decode_seconds"], rel=5e-3)
    patches = largest["bins"] + (side_um / 56) ** 2 + (side_um / 128) ** 2
    beside = largest["processor_seconds"] - largest["both_processor_seconds"]
    assert shipped[HANDLING] == pytest.approx(patches / beside, rel=5e-3)


def test_the_ratios_that_are_shipped_are_those_of_the_benchmarks() -> None:
    whole = [row["ratio"] for row in results("extract.json") if str(row["what"]).startswith("end to end")]
    assert max(whole) == PASS_OVER_LIMIT
    steps = [row["ratio"] for row in results("train.json") if str(row["what"]).startswith("step ÷ encoder")]
    assert steps == [STEP_OVER_ENCODER]


def test_operations_of_a_patch_are_those_that_are_known_of_a_model() -> None:
    assert patch_flops("resnet50", 224) == pytest.approx(2 * 4.09e9, rel=0.01)  # 4.09 G multiply-adds, as published
    small = patch_flops("timm:test_vit", 160)
    assert small == patch_flops("timm:test_vit", 112)  # resized to its one input


def test_a_pace_is_measured_carried_over_or_simulated() -> None:
    core = on_core(ENCODING, "resnet50", 112)
    assert core.kind == "measured"
    other = on_core(ENCODING, "timm:test_resnet", 112)
    assert other.kind == "carried over"
    operations = patch_flops("timm:test_resnet", 112) / patch_flops("resnet50", 112)
    assert other.seconds == pytest.approx(core.seconds * operations)
    gpu = GPUS["a100"]
    assert on_gpu(gpu, ENCODING, "resnet50", 224).kind == "simulated"
    assert on_gpu(gpu, FROZEN, "resnet50", 112, batch=256).seconds == pytest.approx(0.01 / 256)
    tuned, encoded = (on_gpu(gpu, part, "resnet50", 112, batch=10**9).seconds for part in (TUNED, ENCODING))
    assert tuned == pytest.approx(3 * STEP_OVER_ENCODER * encoded, rel=1e-3)
    assert weakest(["measured", "simulated", "carried over"]) == "simulated"


def test_a_file_of_rates_replaces_what_is_assumed(tmp_path: Path) -> None:
    row = {"part": ENCODING, "backbone": "resnet50", "rate_per_s": 1234.0, "unit": "patches", "device": "NVIDIA X"}
    path = tmp_path / "gpu.json"
    path.write_text(json.dumps([{"what": "a ratio", "ratio": 1.0}, {**row, "batch": 64}]))
    gpu = budget_of(None, "h100", None, None, None, path).gpu
    assert gpu == replace(GPUS["h100"], title="NVIDIA X", rates=read_rates(path))
    pace = on_gpu(gpu, ENCODING, "resnet50", 224)  # what a row is of, unless it says something else
    assert (pace.kind, pace.seconds) == ("measured", 1 / 1234)
    assert on_gpu(gpu, ENCODING, "resnet50", 112).kind == "carried over"
    assert on_gpu(gpu, FROZEN, "resnet50", 112, batch=256).kind == "simulated"


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("{", "expected a JSON list of rows"),
        ("{}", "found no rate of stage-one, "),
        ('[{"part": "other"}]', "found no rate of stage-one, "),
        ('[{"part": "frozen", "rate_per_s": 0, "unit": "bins", "device": "x"}]', "rate_per_s: Input should be greater"),
        ('[{"part": "frozen", "rate_per_s": 1, "unit": "patches", "device": "x"}]', "expected bins as unit of frozen"),
    ],
)
def test_a_file_without_rates_is_refused_in_one_line(tmp_path: Path, content: str, said: str) -> None:
    path = tmp_path / "gpu.json"
    path.write_text(content)
    with pytest.raises(MagnetError, match=said):
        read_rates(path)


def test_what_is_asked_is_checked() -> None:
    with pytest.raises(MagnetError, match="--gpu: expected a known name, found 'a10'; did you mean a100"):
        budget_of(None, "a10", None, None, None, None)
    with pytest.raises(MagnetError, match="expected --gpus or --days, found both"):
        budget_of(None, "a100", 2, 7.0, None, None)
    week = budget_of(5, "a100", None, 7.0, 2.0, None)
    assert week.headings == ["hours", "number for 7 days", "EUR"]
    assert week.cells(337.0, is_gpu=True) == ["337", "3", "674"]
    assert week.cells(337.0, is_gpu=False)[-1] == "–"
    one = budget_of(None, "a100", None, None, None, None)
    assert (one.slides, one.headings, one.cells(36.0, is_gpu=True)) == (
        (10, 1_000, 100_000),
        ["hours", "days with 1"],
        ["36.0", "1.5"],
    )

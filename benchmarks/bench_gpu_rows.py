"""What the parts of `bench_gpu.py` share: their rows in one file, their time, and how large everything is.

In: a part's figures. Out: rows in a JSON file that is whole after each of them, so that a stop loses nothing:

    part, what   of which part, and what is compared with what
    ratio        ours ÷ the limit, or what the row's text says
    goal, holds  the most (or least) it may be, and whether it is
    rate_per_s   instead of these: so many of a `unit` a second, for a `backbone` on a `device`, from patches of so many
                 pixels a side; `extract plan --rates` reads them
    fault        instead of these: why there is no figure
"""

import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from magnet_core.files import write_json

PARTS = ("machine", "gpu-tests", "faiss", "stage-one", "stage-two", "compile", "end-to-end")  # in the file's order
SHARE_OF_REPEATS = 0.7  # of a part's time, after which nothing is measured anew: its process is ended at all of it

Row = dict[str, Any]


@dataclass(frozen=True)
class Scale:
    """How large everything is, on one device.

    backbones     a convolutional one and a ViT
    batch_size    fine rows of a step; micro_batch of them are encoded at a time under the gradient cache
    area          of the slide of stage two, of `bench_train_slide`: 1 is the paper's 6,000 bins
    steps         of one measurement
    points        whose neighbours are found, and features (queries, keys, width)
    size_mm, bins, spots   of the slides of stage one
    small_backbone, small_mm, small_bins, epochs   of the end-to-end fit on four slides
    backend       of torch.compile; empty is its own choice
    """

    device: str
    reduced: bool
    backbones: tuple[str, str] = ("resnet50", "timm:vit_large_patch16_224")
    batch_size: int = 256
    micro_batch: int = 16
    area: float = 1.0
    steps: int = 10
    repeats: int = 5
    points: int = 500_000
    features: tuple[int, int, int] = (20_000, 50_000, 1024)
    slides: int = 2
    size_mm: float = 2.0
    bins: int = 20_000
    spots: int = 2500
    small_backbone: str = "timm:test_resnet"
    small_mm: float = 0.8
    small_bins: int = 1000
    epochs: int = 4
    backend: str = ""

    @classmethod
    def choose(cls, device: str, *, reduced: bool) -> "Scale":
        """Take the paper's sizes, or tiny ones that show on two CPU cores that every line runs.

        In the reduced form torch.compile stops short of generating kernels, which takes a C++ compiler minutes.
        """
        if not reduced:
            return cls(device, reduced)
        return cls(
            device, reduced, backbones=("timm:test_resnet", "timm:test_vit"), batch_size=24, micro_batch=8, area=0.02,
            steps=2, repeats=1, points=2000, features=(50, 200, 16), slides=1, size_mm=0.4, bins=60, spots=10,
            small_mm=0.4, small_bins=60, epochs=1, backend="aot_eager",
        )  # fmt: skip

    @property
    def device_name(self) -> str:
        """What the rows call the device."""
        return torch.cuda.get_device_name(self.device) if self.device.startswith("cuda") else "CPU"


@dataclass
class Budget:
    """The time of a part, from when this is made."""

    seconds: float
    started: float = field(default_factory=time.monotonic)

    def repeats(self, most: int, *, share: float = 1.0) -> Iterator[int]:
        """Number repetitions: one in any case, then as many as end within a share of the time, all alike."""
        until = self.started + self.seconds * SHARE_OF_REPEATS * share
        longest = 0.0
        for repeat in range(most):
            began = time.monotonic()
            if repeat and began + longest > until:
                return
            yield repeat
            longest = max(longest, time.monotonic() - began)


class PartRows:
    """The rows of one part; each is printed and written as soon as it is there, beside those of other parts."""

    def __init__(self, path: Path, part: str, device_name: str = "") -> None:
        self.part = part
        self.device_name = device_name
        self._path = path
        self._rows: list[Row] = []

    def compare(self, what: str, ratio: float, goal: float, *, at_least: bool = False, **more: Any) -> None:
        """Add a figure that may be the goal at most, or at least."""
        holds = bool(ratio >= goal if at_least else ratio <= goal)
        self._add({"what": what, "ratio": round(float(ratio), 6), "goal": goal, "holds": holds, **more})

    def rate(self, what: str, per_s: float, unit: str, *, backbone: str, patch_px: int) -> None:
        """Add a rate."""
        rate = {"rate_per_s": round(per_s, 2), "unit": unit, "device": self.device_name}
        self._add({"what": what, "backbone": backbone, "patch_px": patch_px, **rate})

    def note(self, what: str, **more: Any) -> None:
        """Add facts that are compared with nothing."""
        self._add({"what": what, **more})

    def fault(self, what: str, fault: str) -> None:
        """Add a figure that could not be had, and why."""
        self._add({"what": what, "fault": fault, "holds": False})

    def _add(self, row: Row) -> None:
        self._rows.append({"part": self.part, **row})
        print(", ".join(f"{name}: {value}" for name, value in self._rows[-1].items()), flush=True)
        write_part(self._path, self.part, self._rows)


def read_rows(path: Path) -> list[Row]:
    """Rows of all parts; none where there is no file yet."""
    rows: list[Row] = json.loads(path.read_text(encoding="utf-8")) if path.exists() else []
    return rows


def write_part(path: Path, part: str, rows: Sequence[Row]) -> None:
    """Write the file anew with these rows of a part; those of others stay."""
    others = [row for row in read_rows(path) if row["part"] != part]
    write_json(path, sorted([*others, *rows], key=lambda row: PARTS.index(row["part"])))


def finish(device: torch.device) -> None:
    """Wait until a GPU has done what it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)

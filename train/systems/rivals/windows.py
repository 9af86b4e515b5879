"""Cutting a level of a slide into windows, for systems whose attention runs over every row of a slide.

In: the centres of a level's rows. Out: windows of at most so many rows that lie together, each row in exactly one, with
the column and row of each on the level's own grid, counted within the window. The slides of HisToGene (Pang et al.
2021) and Hist2ST (Zeng et al. 2022) are a few hundred spots; at HD scale attention over a whole slide is out of reach.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from magnet_core.device import to_device
from magnet_core.symmetry import turn
from train.data.rows import Rows
from train.data.slide import LevelData, Slide
from train.learning.setting import Setting

# N rows of a level, n rows of a window, F fine features, P panel genes, p pixels of a patch, q pixels as it is read

_GAP = 1.5  # pitches: rows farther apart along an axis do not touch, on square and on hexagonal grids
_SLACK = 0.25  # pitches that a window may exceed its table by: rounding brings them back
_DECIMALS = 4  # of a pitch: far below what tells rows apart, far above the rounding of coordinates


@dataclass(frozen=True)
class Window:
    """Rows that are seen together.

    rows       (n,) sorted
    positions  (n, 2) int64, the x and y of each row in pitches from the window's least
    """

    rows: np.ndarray
    positions: np.ndarray


@dataclass(frozen=True, repr=False)
class WindowRows(Rows):
    """The rows of one window, with their places in it: what a system of windows takes a step on."""

    positions: np.ndarray = field(kw_only=True)  # (n, 2) int64, as of `Window`


def level_windows(level: LevelData, *, window: int, positions: int) -> list[Window]:
    """Cut a level into windows, see `cut_windows`."""
    pitch_um = level_pitch_um(level.centres_um, level.edges)
    return cut_windows(level.centres_um, pitch_um=pitch_um, window=window, positions=positions)


def fine_windows(slides: Sequence[Slide], *, window: int, positions: int) -> list[WindowRows]:
    """Windows of the fine rows of all slides."""
    return [
        WindowRows(slide, part.rows, positions=part.positions)
        for slide in slides
        for part in level_windows(slide.fine, window=window, positions=positions)
    ]


def level_pitch_um(centres_um: np.ndarray, edges: np.ndarray) -> float:
    """Median distance of a row to its nearest neighbour, the first of its edges (N, k)."""
    if edges.shape[1] == 0:
        return 1.0  # a single row: any pitch will do
    return float(np.median(np.linalg.norm(centres_um[edges[:, 0]] - centres_um, axis=1)))


def cut_windows(centres_um: np.ndarray, *, pitch_um: float, window: int, positions: int) -> list[Window]:
    """Cut rows (N, 2) into windows of at most `window` rows and, in both axes, `positions` pitches.

    What is too large is halved, and the halves again: along an empty strip if there is one that leaves no small rest,
    so that patches of tissue stay whole; otherwise across the longer side, so that all windows come out equally full.
    """
    placed = np.round((centres_um - centres_um.min(axis=0)) / pitch_um, _DECIMALS)
    waiting, windows = [np.arange(len(placed))], []
    while waiting:
        rows = waiting.pop()
        if len(rows) <= window and np.ptp(placed[rows], axis=0).max() <= positions - 1 + _SLACK:
            rows = np.sort(rows)
            from_least = placed[rows] - placed[rows].min(axis=0)
            windows.append(Window(rows, np.floor(from_least + 0.5 + 10**-_DECIMALS / 2).astype(np.int64)))
        else:
            waiting.extend(reversed(_halves(rows, placed[rows], window)))
    return windows


def window_pixels(item: WindowRows, *, side: int, device: torch.device, view: int = 0) -> Tensor:
    """Patches (n, 3, side, side) in 0 … 1 of a window, averaged to one size, seen in one of the 8 symmetries."""
    patches = to_device(torch.from_numpy(item.slide.fine.pixels(item.rows)), device)
    planes = turn(patches, view).permute(0, 3, 1, 2).contiguous()  # (n,p,p,3) -> (n,3,p,p), in bytes, which is quick
    images = planes.float().div_(255)
    return images if images.shape[-1] == side else F.adaptive_avg_pool2d(images, side)  # (n,3,p,p) -> (n,3,q,q)


def window_inputs(item: WindowRows, setting: Setting, *, side: int, view: int = 0) -> Tensor:
    """What a system without an encoder reads of a window: fine features (n, F), or pixels where it is fine-tuned.

    Of a store without views, every view of the features is the first.
    """
    if setting.finetune:
        return window_pixels(item, side=side, device=setting.device, view=view)
    fine = item.slide.fine
    return fine.fine_scale(fine.features("fine", item.rows, view=view, device=setting.device))


def shuffled(windows: Sequence[WindowRows], rng: np.random.Generator) -> list[WindowRows]:
    """Return all windows in a new order: an epoch, one window a step."""
    return [windows[index] for index in rng.permutation(len(windows))]


def predict_windows(windows: Sequence[WindowRows], predict: Callable[[WindowRows], Tensor]) -> np.ndarray:
    """Predict all rows (N, P) of the slide that the windows were cut from, without gradient."""
    order = np.argsort(np.concatenate([item.rows for item in windows]))
    with torch.inference_mode():
        return np.concatenate([predict(item).float().cpu().numpy() for item in windows])[order]


def _halves(rows: np.ndarray, placed: np.ndarray, window: int) -> tuple[np.ndarray, np.ndarray]:
    """Cut rows at (n, 2) pitches in two, see `cut_windows`."""
    least = 1 if len(rows) <= window else max(1, window // 4)
    orders = [np.lexsort((placed[:, 1 - axis], placed[:, axis])) for axis in (0, 1)]
    allowed = slice(least - 1, len(rows) - least)  # gap i lies between i + 1 rows and the rest
    gaps = [np.diff(placed[order, axis])[allowed] for axis, order in enumerate(orders)]
    widest = [float(gap.max(initial=0.0)) for gap in gaps]
    if max(widest) > _GAP:
        axis = int(np.argmax(widest))
        left = least + int(np.argmax(gaps[axis]))
    else:
        axis = int(np.argmax(np.ptp(placed, axis=0)))
        parts = max(2, -(-len(rows) // window))
        left = len(rows) * (parts // 2) // parts
    return rows[orders[axis][:left]], rows[orders[axis][left:]]

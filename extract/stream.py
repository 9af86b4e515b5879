"""One pass over a slide that decodes each tissue pixel once and cuts the patches of every level from it.

In: a slide at the working resolution, and for each level its patch centres in reading order. Out: runs of patches,
(level, first row, (n, p, p, 3) uint8), in which the rows of each level come in order.

The slide is read in square tiles of 256 pixels, 64 µm at 0.25 µm/px, as most slides are stored. A band of tiles is
read ahead by worker threads; tiles are dropped when no later patch can touch them, so that memory grows with the width
of the slide, not with its area.
"""

from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from extract.levels import BAND_UM
from magnet_core.slides import ScaledSlide
from magnet_core.units import WORKING_MPP, patch_px

# n patches of one run, p pixels a side

TILE_PX = 256
_RUN = 256  # patches handed over at a time


@dataclass(frozen=True)
class PatchRequest:
    """The patches of one level: centres (N, 2) in µm, in reading order; `wanted` (N,) bool says which are needed.

    `mpp` is that of the slide as it is read.
    """

    centres_um: np.ndarray
    patch_um: float
    wanted: np.ndarray
    mpp: float = WORKING_MPP

    @property
    def side_px(self) -> int:
        """Side of a patch in working pixels."""
        return patch_px(self.patch_um, self.mpp)

    def corners_px(self) -> np.ndarray:
        """Top-left corner of each patch in working pixels, (N, 2) int64, (x, y)."""
        return np.round(self.centres_um / self.mpp - self.side_px / 2).astype(np.int64)


class TileReader:
    """Tiles of a slide, read by threads ahead of their use, each once, and dropped behind it."""

    def __init__(self, slide: ScaledSlide, pool: ThreadPoolExecutor) -> None:
        self._slide = slide
        self._pool = pool
        self._tiles: dict[tuple[int, int], Future[np.ndarray]] = {}

    def request(self, tiles: np.ndarray) -> None:
        """Begin to read tiles (n, 2), column and row, that were not asked for before."""
        for column, row in tiles.tolist():
            if (column, row) not in self._tiles:
                corner = (column * TILE_PX, row * TILE_PX)
                self._tiles[column, row] = self._pool.submit(self._slide.read, *corner, TILE_PX, TILE_PX)

    def drop_above(self, row: int) -> None:
        """Forget the tiles above tile row `row`."""
        for key in [key for key in self._tiles if key[1] < row]:
            del self._tiles[key]

    def patch(self, corner_px: np.ndarray, side_px: int) -> np.ndarray:
        """Cut one square patch (p, p, 3) from the tiles it touches."""
        x, y = corner_px.tolist()
        patch = np.empty((side_px, side_px, 3), dtype=np.uint8)
        for row in range(y // TILE_PX, (y + side_px - 1) // TILE_PX + 1):
            for column in range(x // TILE_PX, (x + side_px - 1) // TILE_PX + 1):
                tile = self._tiles[column, row].result()
                left, top = column * TILE_PX, row * TILE_PX
                x0, x1 = max(x, left), min(x + side_px, left + TILE_PX)
                y0, y1 = max(y, top), min(y + side_px, top + TILE_PX)
                patch[y0 - y : y1 - y, x0 - x : x1 - x] = tile[y0 - top : y1 - top, x0 - left : x1 - left]
        return patch


def stream_patches(
    slide: ScaledSlide, requests: Mapping[str, PatchRequest], *, workers: int = 2
) -> Iterator[tuple[str, int, np.ndarray]]:
    """Yield runs of wanted patches of all levels, band by band from the top of the slide."""
    corners = {name: request.corners_px() for name, request in requests.items()}
    bands = _rows_by_band(requests)
    if not bands:
        return
    tops = [min(corners[name][rows, 1].min() for name, rows in band.items()) for band in bands]
    top_of_rest = np.minimum.accumulate(tops[::-1])[::-1] // TILE_PX
    with ThreadPoolExecutor(max(workers, 1)) as pool:
        reader = TileReader(slide, pool)
        for position, band in enumerate(bands):
            reader.drop_above(int(top_of_rest[position]))
            for ahead in bands[position : position + 2]:  # this band, and the next one to be read meanwhile
                for name, rows in ahead.items():
                    reader.request(_tiles_touched(corners[name][rows], requests[name].side_px))
            for name, rows in band.items():
                yield from _runs(name, reader, corners[name], rows, side_px=requests[name].side_px)


def _rows_by_band(requests: Mapping[str, PatchRequest]) -> list[dict[str, np.ndarray]]:
    """Wanted rows of each level in each band of the slide that has any, from the top."""
    bands: dict[int, dict[str, np.ndarray]] = {}
    for name, request in requests.items():
        rows = np.flatnonzero(request.wanted)
        if len(rows) == 0:
            continue
        band_of_row = (request.centres_um[rows, 1] // BAND_UM).astype(np.int64)
        numbers, starts = np.unique(band_of_row, return_index=True)
        for number, start, stop in zip(numbers.tolist(), starts, [*starts[1:], len(rows)], strict=True):
            bands.setdefault(number, {})[name] = rows[start:stop]
    return [bands[number] for number in sorted(bands)]


def _runs(
    name: str, reader: TileReader, corners: np.ndarray, rows: np.ndarray, *, side_px: int
) -> Iterator[tuple[str, int, np.ndarray]]:
    """Cut the patches of `rows` in runs of neighbouring row numbers."""
    breaks = np.flatnonzero(np.diff(rows) > 1) + 1
    for stretch in np.split(rows, breaks):
        for start in range(0, len(stretch), _RUN):
            run = stretch[start : start + _RUN]
            yield name, int(run[0]), np.stack([reader.patch(corners[row], side_px) for row in run])


def _tiles_touched(corners: np.ndarray, side_px: int) -> np.ndarray:
    """Columns and rows of all tiles that patches at these corners touch, (n, 2), each once, top row first."""
    first, last = corners // TILE_PX, (corners + side_px - 1) // TILE_PX
    reach = int((last - first).max(initial=0))
    steps = np.arange(reach + 1)
    offsets = np.stack(np.meshgrid(steps, steps, indexing="ij"), axis=-1).reshape(-1, 1, 2)
    tiles = np.minimum(first + offsets, last).reshape(-1, 2)
    return np.unique(tiles[:, ::-1], axis=0)[:, ::-1]

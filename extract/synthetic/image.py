"""A painting written as scanners write it: tiled, pyramidal BigTIFF with JPEG tiles, and two small PNG pictures.

In: a `Painting`. Out: `…_tissue_image.btf` and the thumbnails of a Space Ranger `spatial/` folder. The full picture
passes through tile by tile; only the first reduced level (one sixteenth of the pixels) is held in memory.
"""

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import tifffile
from PIL import Image

from extract.synthetic.paint import Painting
from magnet_core.files import replacing

TILE_PX = 512
TILES_A_BLOCK = 2  # painted side by side at a time
LEVEL_STEP = 4  # from one pyramid level to the next
SMALLEST_LEVEL_PX = 256
JPEG_QUALITY = 85
HIRES_PX, LOWRES_PX = 2000, 600

# h, w rows and columns of a level


def write_slide(painting: Painting, side_px: int, path: Path, *, on_tile: Callable[[], object]) -> np.ndarray:
    """Paint and write a slide; `on_tile()` is called after each tile.

    Returns the picture reduced `LEVEL_STEP` times, (side/4, side/4, 3) uint8.
    """
    reduced = np.empty((side_px // LEVEL_STEP, side_px // LEVEL_STEP, 3), np.uint8)
    per_cm = 1e4 / painting.mpp
    with replacing(path) as partial, tifffile.TiffWriter(partial, bigtiff=True) as tiff:

        def write(tiles: Iterator[np.ndarray], shape: tuple[int, ...], level: int) -> None:
            per_cm_here = per_cm / LEVEL_STEP**level
            tiff.write(
                tiles,
                shape=shape,
                dtype=np.uint8,
                tile=(TILE_PX, TILE_PX),
                photometric="rgb",  # what goes in; JPEG stores YCbCr
                compression="jpeg",
                compressionargs={"level": JPEG_QUALITY},
                resolution=(per_cm_here, per_cm_here),
                resolutionunit="CENTIMETER",
                subfiletype=int(level > 0),  # 1: a reduced copy, which is how readers know a pyramid
                metadata=None,
            )

        write(_paint_tiles(painting, side_px, reduced, on_tile), (side_px, side_px, 3), 0)
        picture, level = reduced, 1
        while len(picture) >= SMALLEST_LEVEL_PX:
            write(_cut_tiles(picture), picture.shape, level)
            picture, level = reduce_picture(picture), level + 1
    return reduced


def write_thumbnails(reduced: np.ndarray, side_px: int, folder: Path) -> dict[str, float]:
    """Write the hires and lowres PNG into `folder`; returns their scale factors from full-resolution pixels."""
    scales = {}
    for name, limit_px in (("hires", HIRES_PX), ("lowres", LOWRES_PX)):
        width = min(limit_px, len(reduced))
        with replacing(folder / f"tissue_{name}_image.png") as partial:
            thumbnail = Image.fromarray(reduced).resize((width, width), Image.Resampling.BOX)
            thumbnail.save(partial, format="PNG", compress_level=1)
        scales[f"tissue_{name}_scalef"] = width / side_px
    return scales


def count_tiles(side_px: int) -> int:
    """Number of tiles of the full-resolution level."""
    return (-(-side_px // TILE_PX)) ** 2


def reduce_picture(picture: np.ndarray) -> np.ndarray:
    """Average squares of `LEVEL_STEP` pixels: (h, w, 3) -> (h // step, w // step, 3); a rest is dropped."""
    height, width = (length // LEVEL_STEP for length in picture.shape[:2])
    whole = picture[: height * LEVEL_STEP, : width * LEVEL_STEP]
    rows = whole.reshape(height, LEVEL_STEP, width * LEVEL_STEP, 3).sum(axis=1, dtype=np.uint16)
    squares = rows.reshape(height, width, LEVEL_STEP, 3).sum(axis=2, dtype=np.uint16)
    means: np.ndarray = ((squares + LEVEL_STEP**2 // 2) // LEVEL_STEP**2).astype(np.uint8)
    return means


def _paint_tiles(
    painting: Painting, side_px: int, reduced: np.ndarray, on_tile: Callable[[], object]
) -> Iterator[np.ndarray]:
    """Tiles of the full picture in rows; each block also fills its part of the reduced picture."""
    for top in range(0, side_px, TILE_PX):
        for left in range(0, side_px, TILE_PX * TILES_A_BLOCK):
            width, height = min(TILE_PX * TILES_A_BLOCK, side_px - left), min(TILE_PX, side_px - top)
            block = painting.block(left, top, width, height)
            small = reduce_picture(block)
            row, column = top // LEVEL_STEP, left // LEVEL_STEP
            reduced[row : row + small.shape[0], column : column + small.shape[1]] = small
            for tile in _cut_tiles(block):
                yield tile
                on_tile()


def _cut_tiles(picture: np.ndarray) -> Iterator[np.ndarray]:
    """Tiles (TILE_PX, TILE_PX, 3) in rows; those at the rim are filled up with their last pixels."""
    for top in range(0, picture.shape[0], TILE_PX):
        for left in range(0, picture.shape[1], TILE_PX):
            tile = picture[top : top + TILE_PX, left : left + TILE_PX]
            missing = [(0, TILE_PX - tile.shape[0]), (0, TILE_PX - tile.shape[1]), (0, 0)]
            yield np.ascontiguousarray(tile) if tile.shape[:2] == (TILE_PX, TILE_PX) else np.pad(tile, missing, "edge")

"""Drawn genes as OME-TIFF, for QuPath, napari, Fiji and whatever else shows images of several channels.

In: a prediction, the genes to draw. Out: a file with a channel a gene, named after it:

    values    float32, normalised expression; NaN where no bin lies
    pixels    the whole slide, see `train.predict.raster`, with their width in µm
    layout    tiles of 256 × 256, deflated; each level of the pyramid is half as wide as the one before
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from magnet_core.files import replacing
from train.predict.drawing import Drawing
from train.predict.prediction import SlidePrediction
from train.predict.raster import SlideRaster, rasterise

# C channels, H × W pixels of a level, N rows

TILE_PX = 256
_BIG_BYTES = 3 << 30  # before compression: a TIFF beyond 4 GB needs wider offsets


def write_ome_tiff(prediction: SlidePrediction, path: Path, drawing: Drawing) -> None:
    """Write the file, whole or not at all, one channel of one level at a time."""
    import tifffile

    raster, columns = rasterise(prediction), drawing.columns(prediction.genes)
    channels = [prediction.values[:, column] for column in columns]
    shapes = level_shapes(raster.rows.shape)
    layout = {
        "dtype": np.float32,
        "tile": (TILE_PX, TILE_PX),
        "compression": "zlib",
        "photometric": "minisblack",
    }
    metadata = {
        "axes": "CYX",
        "Name": f"{prediction.slide.slide_id}, predicted expression",
        "Channel": {"Name": prediction.genes.names[columns].tolist()},
        "PhysicalSizeX": raster.um,
        "PhysicalSizeXUnit": "µm",
        "PhysicalSizeY": raster.um,
        "PhysicalSizeYUnit": "µm",
    }
    is_big = 4 * len(channels) * raster.rows.size > _BIG_BYTES
    with replacing(path) as partial, tifffile.TiffWriter(partial, ome=True, bigtiff=is_big) as file:
        for level, shape in enumerate(shapes):
            first = {"subifds": len(shapes) - 1, "metadata": metadata} if level == 0 else {"subfiletype": 1}
            per_cm = 1e4 / (raster.um * 2**level)
            file.write(
                level_tiles(raster, channels, level),
                shape=(len(channels), *shape),
                resolution=(per_cm, per_cm),
                resolutionunit="CENTIMETER",
                **first,
                **layout,
            )


def level_shapes(shape: tuple[int, ...]) -> list[tuple[int, ...]]:
    """Return the shapes of a pyramid's levels, down to one that fits a tile."""
    shapes = [shape]
    while max(shapes[-1]) > TILE_PX:
        shapes.append(tuple((along + 1) // 2 for along in shapes[-1]))
    return shapes


def level_tiles(raster: SlideRaster, channels: list[np.ndarray], level: int) -> Iterator[np.ndarray]:
    """Yield the tiles of a level, channel by channel, as tifffile takes them."""
    for values in channels:
        pixels = raster.paint(values)
        for _ in range(level):
            pixels = halved(pixels)
        for top in range(0, pixels.shape[0], TILE_PX):
            for left in range(0, pixels.shape[1], TILE_PX):
                tile = pixels[top : top + TILE_PX, left : left + TILE_PX]
                missing = [(0, TILE_PX - along) for along in tile.shape]
                yield np.pad(tile, missing, constant_values=np.nan)


def halved(pixels: np.ndarray) -> np.ndarray:
    """Return the mean of each 2 × 2 pixels that are there, (H, W) -> (H / 2, W / 2) rounded up; NaN of none."""
    height, width = pixels.shape
    even = np.pad(pixels, ((0, height % 2), (0, width % 2)), constant_values=np.nan)
    fours = even.reshape(even.shape[0] // 2, 2, even.shape[1] // 2, 2)
    there = np.isfinite(fours)
    count = there.sum(axis=(1, 3))
    total = np.where(there, fours, 0).sum(axis=(1, 3))
    return np.where(count, total / np.maximum(count, 1), np.nan).astype(np.float32)

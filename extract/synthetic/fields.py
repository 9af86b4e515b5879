"""Smooth random fields on a raster, and their values at finer pixels. Serves tissue maps and painted textures."""

import numpy as np
from scipy import ndimage

# H, W rows and columns of a raster; h, w of a block of finer pixels


def smooth_noise(shape: tuple[int, int], sigma: float, rng: np.random.Generator) -> np.ndarray:
    """White noise (H, W) smoothed by a Gaussian of `sigma` pixels: float32, mean 0, sd 1, periodic."""
    field = rng.standard_normal(shape, dtype=np.float32)
    field = ndimage.gaussian_filter(field, sigma, mode="wrap", truncate=3.0)
    standardised: np.ndarray = (field - field.mean()) / field.std()
    return standardised


def ranks(field: np.ndarray) -> np.ndarray:
    """Replace each value of a field (H, W) by its rank in [0, 1): what is left is evenly distributed."""
    order = np.empty(field.size, np.float32)
    order[np.argsort(field, axis=None)] = np.arange(field.size, dtype=np.float32) / field.size
    return order.reshape(field.shape)


def refine(field: np.ndarray, rows: np.ndarray, cols: np.ndarray) -> np.ndarray:
    """Bilinear values (h, w) of a raster (H, W) at fractional `rows` (h,) and `cols` (w,), clamped at the rim."""
    top, down = _neighbours(rows, field.shape[0])
    left, right = _neighbours(cols, field.shape[1])
    narrow = field[:, left[0] : left[-1] + 2]
    tall = narrow[top] + (narrow[top + 1] - narrow[top]) * down[:, None]  # (h, W')
    left = left - left[0]
    near = tall.take(left, axis=1)
    between: np.ndarray = near + (tall.take(left + 1, axis=1) - near) * right
    return between


def _neighbours(positions: np.ndarray, length: int) -> tuple[np.ndarray, np.ndarray]:
    """For ascending positions the index before each, and how far it lies on the way to the next."""
    clamped = np.clip(positions, 0, length - 1)
    before = np.minimum(clamped.astype(np.int64), length - 2)
    return before, (clamped - before).astype(np.float32)

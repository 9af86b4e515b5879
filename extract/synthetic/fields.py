"""Smooth random fields on a raster, and their values at finer pixels. Serves tissue maps and painted textures."""

import numpy as np
from scipy import ndimage

# H, W rows and columns of a raster; h, w of a block of finer pixels


def smooth_noise(shape: tuple[int, int], sigma: float, rng: np.random.Generator) -> np.ndarray:
    """White noise (H, W) smoothed by a Gaussian of `sigma` pixels: float32, mean 0, sd 1, periodic."""
    field = rng.standard_normal(shape, dtype=np.float32)
    field = ndimage.gaussian_filter(field, sigma, mode="wrap", truncate=3.0)
    return (field - field.mean()) / field.std()


def ranks(field: np.ndarray) -> np.ndarray:
    """Replace each value of a field (H, W) by its rank in [0, 1): what is left is evenly distributed."""
    order = np.empty(field.size, np.float32)
    order[np.argsort(field, axis=None)] = np.arange(field.size, dtype=np.float32) / field.size
    return order.reshape(field.shape)


def refine(field: np.ndarray, rows: np.ndarray, cols: np.ndarray) -> np.ndarray:
    """Bilinear values (h, w) of a raster (H, W) at fractional `rows` (h,) and `cols` (w,), clamped at the rim.

    Both axes are interpolated by a matrix product, which is some ten times faster than a general resampler.
    """
    row_weights, row_span = _linear_weights(rows, field.shape[0])
    col_weights, col_span = _linear_weights(cols, field.shape[1])
    return row_weights @ field[row_span, col_span] @ col_weights.T


def _linear_weights(positions: np.ndarray, length: int) -> tuple[np.ndarray, slice]:
    clamped = np.clip(positions, 0, length - 1)
    left = np.minimum(clamped.astype(np.int64), length - 2)
    span = slice(int(left[0]), int(left[-1]) + 2)
    weights = np.zeros((len(clamped), span.stop - span.start), np.float32)
    each, fraction = np.arange(len(clamped)), (clamped - left).astype(np.float32)
    weights[each, left - span.start] = 1 - fraction
    weights[each, left - span.start + 1] = fraction
    return weights, span

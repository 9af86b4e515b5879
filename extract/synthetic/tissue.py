"""The tissue as a map: where it ends, which domain lies where, how fibres run. In: a side and a generator.

Out: `TissueMap`, rasters of 4 µm that the cells, the painter and the expression model all read; nothing else
couples image and counts. Serves the spatial truth of the synthetic data set.
"""

from dataclasses import dataclass

import numpy as np
from scipy import ndimage
from scipy.spatial import cKDTree

from extract.synthetic.fields import ranks, smooth_noise
from extract.synthetic.histology import DOMAINS, FAMILIES, GLASS

MAP_UM = 4.0  # side of a map pixel
DOMAIN_PITCH_UM = 340.0  # typical distance between the centres of two domains

# H, W rows and columns of the map; M points; x runs along columns, y along rows


@dataclass(frozen=True)
class TissueMap:
    """Rasters (H, W) over the imaged square; pixel (r, c) covers `MAP_UM` µm from (c, r) · `MAP_UM`.

    domain      int8, index into `DOMAINS`, or `GLASS`
    cover       float32, below 0.5 on glass, above in tissue, smooth in between
    boundary_um float32, distance to the nearest tissue of another family
    fibre_rad   float32, direction of the fibres
    nest        float32 in [0, 1), evenly distributed; high where clustered cells gather
    """

    domain: np.ndarray
    cover: np.ndarray
    boundary_um: np.ndarray
    fibre_rad: np.ndarray
    nest: np.ndarray

    def at(self, raster: np.ndarray, xy_um: np.ndarray) -> np.ndarray:
        """Values (M,) of one of the rasters at points (M, 2), (x, y) in µm."""
        cols, rows = np.clip((xy_um / MAP_UM).astype(np.int64), 0, len(self.domain) - 1).T
        values: np.ndarray = raster[rows, cols]
        return values


def draw_tissue(side_um: float, rng: np.random.Generator) -> TissueMap:
    """Draw the map of one slide, `side_um` µm on a side."""
    size = int(np.ceil(side_um / MAP_UM))
    cover = _draw_cover(size, rng)
    patch, patch_domain = _draw_patches(size, rng)
    domain = patch_domain[patch]
    family = np.array([FAMILIES.index(kind.family) for kind in DOMAINS])[domain]
    return TissueMap(
        domain=np.where(cover > 0.5, domain, GLASS).astype(np.int8),
        cover=cover,
        boundary_um=_distance_to_other(family),
        fibre_rad=_draw_fibres(patch, domain, rng),
        nest=ranks(smooth_noise((size, size), 24.0 / MAP_UM, rng)),
    )


def _draw_cover(size: int, rng: np.random.Generator) -> np.ndarray:
    """Rounded block with a wavy, frayed outline and a few tears."""
    axis = np.abs((np.arange(size) + 0.5) / size * 2 - 1).astype(np.float32)
    reach = (axis[:, None] ** 3 + axis[None, :] ** 3) ** (1 / 3) / 0.86
    reach += 0.05 * smooth_noise((size, size), size / 9, rng)
    inside_um = (1 - reach) * size * MAP_UM / 2 + 3.0 * smooth_noise((size, size), 12.0 / MAP_UM, rng)
    tear = smooth_noise((size, size), 40.0 / MAP_UM, rng)
    inside_um = np.minimum(inside_um, (2.7 - tear) * 30.0)
    return np.clip(0.5 + inside_um / (4 * MAP_UM), 0, 1).astype(np.float32)


def _draw_patches(size: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Cut the square in patches (H, W) with wavy borders, and deal the domains out to them, each as often."""
    side_um = size * MAP_UM
    per_side = max(3, round(side_um / DOMAIN_PITCH_UM))
    pitch = side_um / per_side
    corner = np.stack(np.meshgrid(np.arange(per_side), np.arange(per_side)), axis=-1).reshape(-1, 2)
    centres = (corner + rng.uniform(0.15, 0.85, corner.shape)) * pitch
    points = np.stack(np.meshgrid(*[(np.arange(size) + 0.5) * MAP_UM] * 2), axis=-1).astype(np.float32)
    warp = [smooth_noise((size, size), sigma / MAP_UM, rng) for sigma in (45.0, 45.0, 14.0, 14.0)]
    points += np.stack([18 * warp[0] + 5 * warp[2], 18 * warp[1] + 5 * warp[3]], axis=-1)
    patch = cKDTree(centres).query(points.reshape(-1, 2))[1].reshape(size, size)
    rounds = -(-len(centres) // len(DOMAINS))
    dealt = np.concatenate([rng.permutation(len(DOMAINS)) for _ in range(rounds)])
    return patch, dealt[: len(centres)]


def _distance_to_other(family: np.ndarray) -> np.ndarray:
    """Distance (H, W) in µm from each pixel to the nearest pixel of another family."""
    distance = np.zeros(family.shape, np.float32)
    for index in range(len(FAMILIES)):
        own = family == index
        distance[own] = ndimage.distance_transform_edt(own)[own] * MAP_UM
    return distance


def _draw_fibres(patch: np.ndarray, domain: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Each patch has its own direction; the domain says over what length and how much fibres stray from it."""
    angle: np.ndarray = rng.uniform(0, np.pi, patch.max() + 1).astype(np.float32)[patch]
    for index, kind in enumerate(DOMAINS):
        length_um, amount_rad = kind.wobble
        stray = amount_rad * smooth_noise(patch.shape, length_um / MAP_UM, rng)
        angle = np.where(domain == index, angle + stray, angle)
    return angle

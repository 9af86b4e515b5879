"""The picture of a slide, block by block. In: map, cells, lumina, sprites, stain. Out: RGB blocks, any order.

A block depends on its place alone, so blocks can be asked for one at a time: a slide is never whole in memory.
Layers from bottom to top: ground, fibres, cytoplasm, lumina, nuclei.
"""

from dataclasses import dataclass

import numpy as np

from extract.synthetic.cells import Cells, Spaces, outline
from extract.synthetic.fields import refine, smooth_noise
from extract.synthetic.histology import DOMAINS, GLASS
from extract.synthetic.sprites import TURNS, Sprite, SpriteBank, stamp
from extract.synthetic.stains import Stain
from extract.synthetic.tissue import MAP_UM, TissueMap

TEXTURE_PX = 1024  # period of the textures
GROUND_EOSIN = 0.42

# C cells, F fibres, L lumina, P stamps; h, w rows and columns of a block; channel 0 haematoxylin, 1 eosin


@dataclass(frozen=True)
class Stamps:
    """Sprites and their centres xy_px (P, 2), in the order of painting; `reach_px` is that of the largest sprite."""

    xy_px: np.ndarray
    sprites: list[Sprite]
    reach_px: int


@dataclass(frozen=True)
class Textures:
    """Periodic noise, each (TEXTURE_PX, TEXTURE_PX): `grain` of 1 px, `cloud` of 5 px, `fray` of the tissue edge."""

    grain: np.ndarray
    cloud: np.ndarray
    fray: np.ndarray


@dataclass(frozen=True)
class Painting:
    """All that a block of the picture is painted from."""

    tissue: TissueMap
    shade: np.ndarray
    fibres: Stamps
    bodies: Stamps
    spaces: Spaces
    nuclei: Stamps
    textures: Textures
    stain: Stain
    mpp: float

    def block(self, left: int, top: int, width: int, height: int) -> np.ndarray:
        """Paint the RGB block (height, width, 3) uint8 whose first pixel is (left, top)."""
        canvas = np.zeros((2, height, width), np.float32)
        columns = (np.arange(left, left + width) + 0.5) * self.mpp / MAP_UM - 0.5
        rows = (np.arange(top, top + height) + 0.5) * self.mpp / MAP_UM - 0.5
        cover = self._cover(left, top, refine(self.tissue.cover, rows, columns))
        if not cover.any():
            return self.stain.to_rgb(canvas + self._dust(left, top, canvas.shape[1:]))
        canvas[1] = GROUND_EOSIN
        _lay(canvas, self.fibres, left, top)
        _lay(canvas, self.bodies, left, top)
        _hollow(canvas, self.spaces, left, top, self.mpp)
        cloud = _window(self.textures.cloud, left, top, canvas.shape[1:])
        canvas[1] *= refine(self.shade, rows, columns) * (1 + 0.16 * cloud)
        _lay(canvas, self.nuclei, left, top)
        canvas *= cover
        canvas += self._dust(left, top, canvas.shape[1:])
        return self.stain.to_rgb(canvas)

    def _cover(self, left: int, top: int, smooth: np.ndarray) -> np.ndarray:
        """Sharpen the map's soft edge and fray it."""
        fray = _window(self.textures.fray, left, top, smooth.shape)
        return np.clip(0.5 + (smooth - 0.5 + 0.04 * fray) * 10, 0, 1)

    def _dust(self, left: int, top: int, shape: tuple[int, ...]) -> np.ndarray:
        dust: np.ndarray = 0.012 * np.abs(_window(self.textures.grain, left + 311, top + 173, shape))
        return dust


def compose(
    tissue: TissueMap,
    cells: Cells,
    spaces: Spaces,
    *,
    bank: SpriteBank,
    stain: Stain,
    mpp: float,
    rng: np.random.Generator,
) -> Painting:
    """Choose every stamp of a slide and hand back what paints it."""
    textures = Textures(*(smooth_noise((TEXTURE_PX, TEXTURE_PX), sigma, rng) for sigma in (0.7, 5.0, 9.0)))
    variant = rng.integers(0, len(bank.nuclei[0]), len(cells))
    turn = _turns(cells.angle_rad)
    chosen = list(zip(cells.kind.tolist(), variant.tolist(), turn.tolist(), strict=True))
    return Painting(
        tissue=tissue,
        shade=1 + 0.10 * smooth_noise(tissue.domain.shape, 60.0 / MAP_UM, rng),
        fibres=_throw_fibres(tissue, bank, mpp, rng),
        bodies=_stamps(cells.xy_um, [bank.bodies[k][v][t] for k, v, t in chosen], mpp),
        spaces=spaces,
        nuclei=_stamps(cells.xy_um, [bank.nuclei[k][v][t] for k, v, t in chosen], mpp),
        textures=textures,
        stain=stain,
        mpp=mpp,
    )


def _throw_fibres(tissue: TissueMap, bank: SpriteBank, mpp: float, rng: np.random.Generator) -> Stamps:
    side_um = len(tissue.domain) * MAP_UM
    densest = max(recipe.fibres for recipe in DOMAINS)
    thrown = rng.uniform(0, side_um, (round(densest * side_um**2 / 1e6), 2))
    domain = tissue.at(tissue.domain, thrown)
    share_kept = np.array([recipe.fibres / densest for recipe in DOMAINS])[domain]
    kept = thrown[(domain != GLASS) & (rng.random(len(thrown)) < share_kept)]
    variant = rng.integers(0, len(bank.fibres), len(kept)).tolist()
    turn = _turns(tissue.at(tissue.fibre_rad, kept) + np.pi * rng.integers(0, 2, len(kept))).tolist()
    return _stamps(kept, [bank.fibres[v][t] for v, t in zip(variant, turn, strict=True)], mpp)


def _stamps(xy_um: np.ndarray, sprites: list[Sprite], mpp: float) -> Stamps:
    reach_px = max((sprite.reach_px for sprite in sprites), default=0)
    return Stamps(np.floor(xy_um / mpp).astype(np.int64), sprites, reach_px)


def _turns(angle_rad: np.ndarray) -> np.ndarray:
    return np.round(angle_rad * TURNS / (2 * np.pi)).astype(np.int64) % TURNS


def _lay(canvas: np.ndarray, stamps: Stamps, left: int, top: int) -> None:
    """Stamp the sprites that touch the block, in the order of the list."""
    height, width = canvas.shape[1:]
    x, y = stamps.xy_px.T
    reach = stamps.reach_px
    touching = (x >= left - reach) & (x < left + width + reach) & (y >= top - reach) & (y < top + height + reach)
    for index in np.flatnonzero(touching).tolist():
        stamp(canvas, stamps.sprites[index], int(y[index]) - top, int(x[index]) - left)


def _hollow(canvas: np.ndarray, spaces: Spaces, left: int, top: int, mpp: float) -> None:
    """Empty the lumina that touch the block; some keep a pink secretion."""
    height, width = canvas.shape[1:]
    for centre, radius, lobes, filled in zip(
        spaces.xy_um / mpp, spaces.radius_um / mpp, spaces.lobes_rad, spaces.filled, strict=True
    ):
        reach = 1.3 * radius + 2
        columns = np.arange(max(left, int(centre[0] - reach)), min(left + width, int(centre[0] + reach) + 1))
        rows = np.arange(max(top, int(centre[1] - reach)), min(top + height, int(centre[1] + reach) + 1))
        if not len(columns) or not len(rows):
            continue
        dx, dy = columns - centre[0], rows[:, None] - centre[1]
        inside = outline(radius, lobes, np.arctan2(dy, dx)) - np.hypot(dx, dy)
        opacity = np.clip(0.5 + inside * mpp / 0.8, 0, 1).astype(np.float32)
        part = canvas[:, rows[0] - top : rows[-1] - top + 1, columns[0] - left : columns[-1] - left + 1]
        part *= 1 - opacity
        part[1] += (0.02 + filled) * opacity


def _window(texture: np.ndarray, left: int, top: int, shape: tuple[int, ...]) -> np.ndarray:
    rows, columns = np.arange(top, top + shape[0]), np.arange(left, left + shape[1])
    return texture.take(rows, axis=0, mode="wrap").take(columns, axis=1, mode="wrap")

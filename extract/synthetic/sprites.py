"""Small pictures of nuclei, cytoplasm and fibres, drawn once and stamped many times. In: the tables of histology.

Out: `SpriteBank`. A sprite holds stain amounts, not colours: haematoxylin and eosin in optical density.
"""

from dataclasses import dataclass

import numpy as np

from extract.synthetic.fields import smooth_noise
from extract.synthetic.histology import CELL_TYPES, CellType

TURNS = 24  # directions a sprite is drawn in
VARIANTS = 6  # shapes per cell type
FIBRE_UM = 52.0
FAINTEST = 0.004  # opacity below which nothing is seen

# h, w rows and columns of a sprite; channel 0 haematoxylin, 1 eosin; u along the length, v across, in µm


@dataclass(frozen=True)
class Sprite:
    """What a stamp does to the canvas: canvas · `through` + `stain`.

    stain   (2, h, w) float32, stain amounts times opacity
    through (h, w) float32, 1 − opacity
    anchor  row and column of the pixel that goes on the place it is stamped at
    """

    stain: np.ndarray
    through: np.ndarray
    anchor: tuple[int, int]

    @property
    def reach_px(self) -> int:
        """Pixels from the anchor to the farthest side."""
        row, col = self.anchor
        height, width = self.through.shape
        return max(row, col, int(height) - row, int(width) - col)


def stamp(canvas: np.ndarray, sprite: Sprite, row: int, col: int) -> None:
    """Lay a sprite on a canvas (2, h, w), its anchor on pixel (row, col); what sticks out is cut off."""
    top, left = row - sprite.anchor[0], col - sprite.anchor[1]
    height, width = sprite.through.shape
    rows = slice(max(0, -top), min(height, canvas.shape[1] - top))
    cols = slice(max(0, -left), min(width, canvas.shape[2] - left))
    if rows.start >= rows.stop or cols.start >= cols.stop:
        return
    target = canvas[:, top + rows.start : top + rows.stop, left + cols.start : left + cols.stop]
    target *= sprite.through[rows, cols]
    target += sprite.stain[:, rows, cols]


@dataclass(frozen=True)
class SpriteBank:
    """Sprites by kind, variant and turn: `nuclei[kind][variant][turn]`; `fibres[variant][turn]`."""

    nuclei: list[list[list[Sprite]]]
    bodies: list[list[list[Sprite]]]
    fibres: list[list[Sprite]]


def draw_bank(mpp: float, rng: np.random.Generator) -> SpriteBank:
    """Draw all sprites at `mpp` µm/px."""
    angles = np.arange(TURNS) * 2 * np.pi / TURNS
    nuclei, bodies = [], []
    for cell in CELL_TYPES:
        shapes = [_draw_shape(cell, rng) for _ in range(VARIANTS)]
        nuclei.append([[_nucleus(cell, shape, angle, mpp) for angle in angles] for shape in shapes])
        bodies.append([[_body(cell, shape, angle, mpp) for angle in angles] for shape in shapes])
    curves = rng.uniform([-1, -1, 0.5], [1, 1, 2.2], (2 * VARIANTS, 3)).astype(np.float32)
    kinds = [(0.75, 0.6), (0.55, 0.45), (0.02, 0.75)]  # eosin and opacity: strong, faint, a cleft between fibres
    fibres = [
        [_fibre(curve, *kinds[index % len(kinds)], angle, mpp) for angle in angles]
        for index, curve in enumerate(curves)
    ]
    return SpriteBank(nuclei, bodies, fibres)


@dataclass(frozen=True)
class _Shape:
    """One variant of a cell type: its scale, outline, chromatin and the places of its nucleoli (share of radius)."""

    scale: float
    waves: np.ndarray
    depth: float
    chromatin: np.ndarray
    nucleoli: np.ndarray


def _draw_shape(cell: CellType, rng: np.random.Generator) -> _Shape:
    return _Shape(
        scale=float(np.exp(rng.normal(0, cell.size_cv))),
        waves=rng.uniform(0, 2 * np.pi, 3).astype(np.float32),
        depth=float(np.exp(rng.normal(0, 0.1))),
        chromatin=smooth_noise((160, 160), 1.0, rng) * 0.5 + smooth_noise((160, 160), 2.2, rng),
        nucleoli=rng.uniform(-0.3, 0.3, (cell.nucleoli, 2)).astype(np.float32),
    )


def _frame(reach_um: float, angle: float, mpp: float) -> tuple[np.ndarray, np.ndarray]:
    """Coordinates (u, v) in µm, each (h, w), of the pixels of a sprite that reaches `reach_um` from its centre."""
    half = int(np.ceil(reach_um / mpp))
    axis = (np.arange(-half, half + 1) * mpp).astype(np.float32)
    cos, sin = np.float32(np.cos(angle)), np.float32(np.sin(angle))
    return axis * cos + axis[:, None] * sin, axis[:, None] * cos - axis * sin


def _inside_um(
    u: np.ndarray, v: np.ndarray, size_um: tuple[float, float], waves: np.ndarray, irregularity: float
) -> np.ndarray:
    """Depth (h, w) below a wavy ellipse's outline in µm, roughly; negative outside."""
    place = 2 * u / size_um[0] + 2j * v / size_um[1]
    reach = np.abs(place)
    turn = place / np.maximum(reach, 1e-6)
    twice = turn * turn
    powers = (twice, twice * turn, twice * twice * turn)  # their real parts, turned: cos(kφ + wave), k = 2, 3, 5
    ripple = sum((power * np.exp(1j * wave)).real for power, wave in zip(powers, waves, strict=True))
    depth_um: np.ndarray = (1 + irregularity * ripple - reach) * min(size_um) / 2
    return depth_um


def _nucleus(cell: CellType, shape: _Shape, angle: float, mpp: float) -> Sprite:
    size_um = (cell.nucleus_um[0] * shape.scale, cell.nucleus_um[1] * shape.scale)
    u, v = _frame(0.62 * size_um[0] + 1.0, angle, mpp)
    depth = _inside_um(u, v + cell.bend * u * u, size_um, shape.waves, cell.irregularity)
    opacity = np.clip(0.5 + depth / 0.6, 0, 1)
    grain = shape.chromatin[: len(u), : len(u)]
    chromatin = cell.chromatin * shape.depth * (1 + cell.clumps * np.clip(grain, -1.5, 1.5) * 0.6)
    chromatin += cell.chromatin * cell.rim * np.exp(-((depth - 0.35) ** 2) / 0.18)
    for along, across in shape.nucleoli:
        far = np.hypot(u - along * size_um[0], v - across * size_um[1])
        chromatin += 0.9 * np.exp(-(far**2) / 0.55)
    return _trim(np.stack([chromatin * opacity, 0.25 * opacity]), opacity)


def _body(cell: CellType, shape: _Shape, angle: float, mpp: float) -> Sprite:
    size_um = (cell.body_um[0] * shape.scale, cell.body_um[1] * shape.scale)
    u, v = _frame(0.62 * size_um[0] + cell.shift_um + 1.0, angle, mpp)
    depth = _inside_um(u - cell.shift_um, v, size_um, shape.waves[::-1], 0.06)
    opacity = cell.body_opacity * np.clip(0.5 + depth / 1.2, 0, 1)
    membrane = 1 + 0.22 * np.exp(-((depth - 0.5) ** 2) / 0.4)
    grain = 1 + 0.10 * shape.chromatin[-len(u) :, -len(u) :]
    tint = opacity * membrane * grain
    return _trim(np.stack([cell.body_stain[0] * tint, cell.body_stain[1] * tint]), opacity)


def _fibre(curve: np.ndarray, eosin: float, opacity: float, angle: float, mpp: float) -> Sprite:
    """A wavy streak `FIBRE_UM` long; `curve` holds its bend, its wave and its half width in µm."""
    u, v = _frame(FIBRE_UM / 2, angle, mpp)
    along = 2 * u / FIBRE_UM
    course = 4.0 * curve[0] * along**2 + 1.5 * curve[1] * np.sin(3 * np.pi * along)
    width = curve[2] * np.clip(1 - along**2, 0.02, 1)
    cover = (opacity * np.exp(-(((v - course) / width) ** 2)) * np.clip(1.5 * (1 - along**2), 0, 1)).astype(np.float32)
    return _trim(np.stack([0.05 * cover, eosin * cover]), cover)


def _trim(stain: np.ndarray, opacity: np.ndarray) -> Sprite:
    """Cut a square picture (2, h, h), anchored in its middle, down to what can be seen of it."""
    rows = np.flatnonzero(opacity.max(axis=1) > FAINTEST)
    cols = np.flatnonzero(opacity.max(axis=0) > FAINTEST)
    shown = np.s_[rows[0] : rows[-1] + 1, cols[0] : cols[-1] + 1]
    middle = len(opacity) // 2
    return Sprite(
        stain=stain[:, *shown].astype(np.float32),
        through=(1 - opacity[shown]).astype(np.float32),
        anchor=(middle - int(rows[0]), middle - int(cols[0])),
    )

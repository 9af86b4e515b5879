"""Cells and lumina placed on a tissue map. In: `TissueMap`. Out: `Cells` and `Spaces`, centres in µm.

Lumina are thrown first and lined with cells; the rest of the tissue is filled by throwing points that keep a least
distance. Types are then dealt out so that each domain has the shares its recipe states, lining cells included.
"""

from dataclasses import dataclass, fields
from typing import TypeVar

import numpy as np
from scipy.spatial import cKDTree

from extract.synthetic.histology import CELL_NAMES, DOMAINS, GLASS, Domain, Lumina
from extract.synthetic.tissue import TissueMap

SPACING_UM = 8.4  # least distance between two cells that line nothing
LINING_CLEARANCE_UM = 6.0  # least distance from such a cell to a lining cell
RIM_UM = 4.0  # tissue of its own that a lumen keeps around its lining
THROWS_PER_MM2 = 30_000  # of which some 9,000 find a place

# C cells, L lumina, M points; (x, y) in µm


@dataclass(frozen=True)
class Cells:
    """xy_um (C, 2) nuclei, kind (C,) index into `CELL_TYPES`, angle_rad (C,) direction of the long axis."""

    xy_um: np.ndarray
    kind: np.ndarray
    angle_rad: np.ndarray

    def __len__(self) -> int:
        return len(self.kind)


@dataclass(frozen=True)
class Spaces:
    """Lumina and how they look.

    xy_um (L, 2) centres; radius_um (L,); lobes_rad (L, 2) phases of the outline; filled (L,) eosin of a secretion;
    clear_um (L,) distance from the centre within which only lining cells lie.
    """

    xy_um: np.ndarray
    radius_um: np.ndarray
    lobes_rad: np.ndarray
    filled: np.ndarray
    clear_um: np.ndarray

    def __len__(self) -> int:
        return len(self.radius_um)


Table = TypeVar("Table", Cells, Spaces)


def outline(radius_um: np.ndarray, lobes_rad: np.ndarray, phi: np.ndarray) -> np.ndarray:
    """Distance in µm from the centre of a lumen to its wall in direction `phi`."""
    lobes = 0.14 * np.cos(2 * phi + lobes_rad[..., 0]) + 0.07 * np.cos(3 * phi + lobes_rad[..., 1])
    wall_um: np.ndarray = radius_um * (1 + lobes)
    return wall_um


def place_cells(tissue: TissueMap, side_um: float, rng: np.random.Generator) -> tuple[Cells, Spaces]:
    """Place the lumina and all cells of one slide, `side_um` µm on a side."""
    thrown: list[Spaces] = []
    lining: list[Cells] = []
    lined = np.zeros((len(DOMAINS), len(CELL_NAMES)), np.int64)
    for index, recipe in enumerate(DOMAINS):
        if recipe.lumina is None:
            continue
        thrown.append(_throw_lumina(tissue, index, recipe.lumina, side_um=side_um, rng=rng))
        lining.append(_line(thrown[-1], recipe.lumina, rng))
        lined[index, CELL_NAMES.index(recipe.lumina.lining)] = len(lining[-1])
    spaces = _joined(thrown)
    xy_um = _fill(tissue, spaces, _joined(lining), side_um=side_um, rng=rng)
    domain, nest = tissue.at(tissue.domain, xy_um), tissue.at(tissue.nest, xy_um)
    kind = np.zeros(len(xy_um), np.int8)
    for index, recipe in enumerate(DOMAINS):
        here = np.flatnonzero(domain == index)
        kind[here] = _deal_types(recipe, lined[index], nest[here], rng)
    angle_rad = _filler_angles(kind, tissue.at(tissue.fibre_rad, xy_um), rng)
    return _joined([*lining, Cells(xy_um, kind, angle_rad)]), spaces


def _throw_lumina(
    tissue: TissueMap, domain: int, recipe: Lumina, *, side_um: float, rng: np.random.Generator
) -> Spaces:
    """Place the lumina of one domain, wholly inside it and without touching each other."""
    thrown = rng.uniform(0, side_um, (rng.poisson(recipe.per_mm2 * side_um**2 / 1e6), 2))
    radius_um = rng.uniform(*recipe.radius_um, len(thrown))
    clear_um = 1.2 * radius_um + recipe.wall_um
    phi = np.linspace(0, 2 * np.pi, 8, endpoint=False)
    rim = thrown[:, None] + (clear_um[:, None] + RIM_UM)[..., None] * np.stack([np.cos(phi), np.sin(phi)], axis=1)
    inside = (tissue.at(tissue.domain, rim.reshape(-1, 2)).reshape(rim.shape[:2]) == domain).all(axis=1)
    fits = np.flatnonzero(inside)
    kept = fits[keep_apart(thrown[fits], clear_um[fits] + RIM_UM)]
    return Spaces(
        xy_um=thrown[kept],
        radius_um=radius_um[kept],
        lobes_rad=rng.uniform(0, 2 * np.pi, (len(kept), 2)),
        filled=rng.choice([0.0, 0.18, 0.5], len(kept), p=[0.6, 0.25, 0.15]),
        clear_um=clear_um[kept],
    )


def keep_apart(xy_um: np.ndarray, radius_um: np.ndarray) -> np.ndarray:
    """Return the discs that stay when, in the given order, a disc that overlaps an earlier kept disc is dropped."""
    if not len(xy_um):
        return np.zeros(0, np.int64)
    pairs = cKDTree(xy_um).query_pairs(2 * radius_um.max(), output_type="ndarray")
    apart = np.linalg.norm(xy_um[pairs[:, 0]] - xy_um[pairs[:, 1]], axis=1)
    pairs = pairs[apart < radius_um[pairs].sum(axis=1)]
    pairs = pairs[np.argsort(pairs[:, 0], kind="stable")]
    stays = [True] * len(xy_um)
    for earlier, later in pairs.tolist():  # earlier < later, and all that could remove `earlier` came before
        if stays[earlier]:
            stays[later] = False
    return np.flatnonzero(stays)


def _line(spaces: Spaces, recipe: Lumina, rng: np.random.Generator) -> Cells:
    """Line each lumen with cells, evenly round it."""
    number = np.maximum(3, 2 * np.pi * (spaces.radius_um + recipe.wall_um) / recipe.spacing_um).astype(np.int64)
    owner = np.repeat(np.arange(len(spaces)), number)
    place = np.arange(len(owner)) - np.repeat(np.cumsum(number) - number, number)
    phi = (place + rng.uniform(-0.2, 0.2, len(owner))) * 2 * np.pi / number[owner]
    reach_um = outline(spaces.radius_um[owner], spaces.lobes_rad[owner], phi) + recipe.wall_um
    reach_um += rng.normal(0, 0.08, len(owner)) * recipe.wall_um
    toward = np.stack([np.cos(phi), np.sin(phi)], axis=1)
    turn = np.pi if recipe.radial else -np.pi / 2  # standing cells face the space, lying ones bend round it
    kind = np.full(len(owner), CELL_NAMES.index(recipe.lining), np.int8)
    return Cells(spaces.xy_um[owner] + reach_um[:, None] * toward, kind, phi + turn)


def _fill(tissue: TissueMap, spaces: Spaces, lining: Cells, *, side_um: float, rng: np.random.Generator) -> np.ndarray:
    """Throw points (M, 2) that keep their distance from each other, from lumina and from lining cells."""
    thrown = rng.uniform(0, side_um, (round(THROWS_PER_MM2 * side_um**2 / 1e6), 2))
    thrown = thrown[tissue.at(tissue.domain, thrown) != GLASS]
    if len(spaces):
        # lumina differ in size: the nearest wall need not belong to the nearest centre
        nearest = min(3, len(spaces))
        away_um, owner = cKDTree(spaces.xy_um).query(thrown, k=range(1, nearest + 1))
        thrown = thrown[(away_um > spaces.clear_um[owner]).all(axis=1)]
        thrown = thrown[cKDTree(lining.xy_um).query(thrown)[0] > LINING_CLEARANCE_UM]
    placed = thrown[keep_apart(thrown, np.full(len(thrown), SPACING_UM / 2))]
    density = np.array([recipe.density for recipe in DOMAINS])[tissue.at(tissue.domain, placed)]
    kept: np.ndarray = placed[rng.random(len(placed)) < density]
    return kept


def _deal_types(recipe: Domain, lined: np.ndarray, nest: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Deal types (M,) to a domain's filling cells so that, with the `lined` (T,) cells, it has its shares."""
    targets = np.array([recipe.shares.get(name, 0.0) for name in CELL_NAMES]) * (len(nest) + lined.sum())
    missing = np.maximum(targets - lined, 0)
    if not len(nest) or not missing.any():
        return np.zeros(len(nest), np.int8)
    edges = np.cumsum(missing / missing.sum())
    dealt = np.minimum(np.searchsorted(edges, rng.random(len(nest)), side="right"), len(edges) - 1).astype(np.int8)
    if recipe.clustered is None:
        return dealt
    clustered = CELL_NAMES.index(recipe.clustered)
    by_nest = np.argsort(-nest, kind="stable")  # the deal is kept; only who gets which card changes
    order = np.argsort(dealt != clustered, kind="stable")
    gathered = np.empty_like(dealt)
    gathered[by_nest] = dealt[order]
    return gathered


def _filler_angles(kind: np.ndarray, fibre_rad: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Fibroblasts and capillaries lie along the fibres; other cells lie any way."""
    along = np.isin(kind, [CELL_NAMES.index("fibroblast"), CELL_NAMES.index("endothelium")])
    flipped = fibre_rad + np.pi * rng.integers(0, 2, len(kind))
    return np.where(along, flipped + rng.normal(0, 0.15, len(kind)), rng.uniform(0, 2 * np.pi, len(kind)))


def _joined(parts: list[Table]) -> Table:
    """Concatenate tables of one kind, column by column."""
    columns = [field.name for field in fields(parts[0])]
    return type(parts[0])(*(np.concatenate([getattr(part, name) for part in parts]) for name in columns))

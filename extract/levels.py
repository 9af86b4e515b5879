"""The levels of one slide: the rows of each, where they lie, the rows they are paired with, and their raw counts.

In: a slide's counts and its µm/px. Out: `Level`s, rows in the order in which a slide is read (128 µm bands from the
top, left to right), kNN edges among the rows, pairing by coordinates only (paper section 3).
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from scipy import sparse

from cache.knn import knn_edges
from extract.config import GeometryConfig
from extract.count_rows import CountRows
from extract.sampling import sample_rows
from magnet_core.errors import MagnetError
from magnet_core.grid import Tiling, dilate, sum_by_owner, tile
from magnet_core.levels import CENTRE, REGION, SPOT, TARGETS, bin_level
from magnet_core.records import Assay, Sample, SlideCounts
from magnet_core.seeding import named_rng
from magnet_core.slides import ScaledSlide

# N rows of a level, G genes, k neighbours

BAND_UM = 128.0  # height of the bands in which a slide is read
_OUTSIDE_ALLOWED = 0.01  # share of centres that may lie outside the image before it is the wrong one


@dataclass(frozen=True)
class Level:
    """One level of one slide.

    centres_um (N, 2) float64, (x, y) from the slide's top-left; barcodes (N,) str; edges (N, k) int32, nearest first
    counts     raw, of N rows, None for a level that was not measured
    pairs      for each context level, the row it pairs with each of these rows, (N,) int64
    pixels     whether the patches themselves are stored, because this level's encoder is fine-tuned
    """

    name: str
    patch_um: float
    centres_um: np.ndarray
    barcodes: np.ndarray
    edges: np.ndarray
    counts: CountRows | None = None
    pairs: dict[str, np.ndarray] = field(default_factory=dict)
    pixels: bool = False

    def __len__(self) -> int:
        return len(self.centres_um)


def lay_levels(counts: SlideCounts, mpp: float, config: GeometryConfig, *, slide_id: str) -> list[Level]:
    """Lay all levels of one slide that its platform and the chosen targets allow."""
    _check_not_empty(counts, slide_id=slide_id)
    if counts.spots is not None:
        if 55 not in config.targets:
            raise MagnetError(
                f"slide '{slide_id}'",
                expected="55 among --targets, as its platform measures spots",
                found=", ".join(map(str, config.targets)),
                remedy="pass --targets 55, or leave the slide out",
            )
        return _lay_on_spots(counts.spots, mpp, config, slide_id=slide_id)
    return _lay_on_bins(counts.bins, mpp, config, slide_id=slide_id)


def reading_order(centres_um: np.ndarray) -> np.ndarray:
    """Rows by 128 µm band from the top, then by 128 µm square from the left, then by row and column inside it."""
    x, y = centres_um.T
    return np.lexsort((x, y, x // BAND_UM, y // BAND_UM))


def _lay_on_bins(bins: dict[int, Assay], mpp: float, config: GeometryConfig, *, slide_id: str) -> list[Level]:
    """Visium HD, Xenium, H&E only: spots and regions are squares that sum the finest bins inside (Eq. 6)."""
    finest_um = min(bins)
    finest_points_um = bins[finest_um].centres_px * mpp
    regions = tile(finest_points_um, config.region_patch_um, pitch_um=finest_um)
    spots = tile(finest_points_um, config.spot_patch_um, pitch_um=finest_um)

    sampled = {
        um: _sample(assay, mpp, config, pitch_um=um, count=config.bins, rng=named_rng(config.seed, slide_id, str(um)))
        for um, assay in bins.items()
        if um in config.targets
    }
    bin_points_um = [bins[um].centres_px[rows] * mpp for um, rows in sampled.items()]
    spots = spots.subset(_wanted_spots(spots, bin_points_um, config, rng=named_rng(config.seed, slide_id, SPOT)))
    held = np.unique(np.concatenate([regions.nearest_rows_of(points) for points in [*bin_points_um, spots.centres_um]]))
    regions = regions.subset(dilate(regions, held, hops=config.context_hops))

    levels = [
        _level(
            bin_level(um),
            bins[um].centres_px[rows] * mpp,
            config,
            patch_um=config.bin_patch_um,
            barcodes=bins[um].barcodes[rows],
            counts=bins[um].counts,
            count_rows=rows,
            pixels=True,
        )
        for um, rows in sampled.items()
    ]
    finest = bins[finest_um].counts
    spot_counts = _sum_inside(finest, finest_points_um, spots)
    region_counts = _sum_inside(finest, finest_points_um, regions)
    levels += _context_levels(spots.centres_um, spot_counts, _cell_names(SPOT, spots), regions, region_counts, config)
    return _pair(levels, {SPOT: spots, REGION: regions})


def _lay_on_spots(spots: Assay, mpp: float, config: GeometryConfig, *, slide_id: str) -> list[Level]:
    """Visium and legacy ST: spots are measured, regions are squares that sum the spots inside, bins are unmeasured."""
    rng = named_rng(config.seed, slide_id, SPOT)
    rows = _sample(spots, mpp, config, pitch_um=spots.pitch_um or 100.0, count=config.spots, rng=rng)
    points_um = spots.centres_px[rows] * mpp
    regions = tile(points_um, config.region_patch_um)
    spot_counts = None if spots.counts is None else spots.counts[rows]
    region_counts = _sum_inside(spot_counts, points_um, regions)
    levels = _context_levels(points_um, spot_counts, spots.barcodes[rows], regions, region_counts, config)
    return _pair(levels, {REGION: regions})


def _context_levels(
    spot_points_um: np.ndarray,
    spot_counts: sparse.csr_matrix | None,
    spot_barcodes: np.ndarray,
    regions: Tiling,
    region_counts: sparse.csr_matrix | None,
    config: GeometryConfig,
) -> list[Level]:
    fine_spots = 55 in config.targets
    levels = [
        _level(
            SPOT,
            spot_points_um,
            config,
            patch_um=config.spot_patch_um,
            barcodes=spot_barcodes,
            counts=spot_counts,
            pixels=fine_spots,
        ),
        _level(
            REGION,
            regions.centres_um,
            config,
            patch_um=config.region_patch_um,
            barcodes=_cell_names(REGION, regions),
            counts=region_counts,
        ),
    ]
    if fine_spots:
        spot = levels[0]
        levels.append(Level(CENTRE, config.bin_patch_um, spot.centres_um, spot.barcodes, spot.edges))
    return levels


def _level(
    name: str,
    points_um: np.ndarray,
    config: GeometryConfig,
    *,
    patch_um: float,
    barcodes: np.ndarray,
    counts: sparse.csr_matrix | None,
    count_rows: np.ndarray | None = None,
    pixels: bool = False,
) -> Level:
    """Put rows into the order of reading; `count_rows` are their rows in `counts`, where those hold more."""
    order = reading_order(points_um)
    points_um = np.ascontiguousarray(points_um[order])
    edges = knn_edges(points_um, config.neighbours)
    ordered = None if counts is None else CountRows(counts, order if count_rows is None else count_rows[order])
    return Level(name, patch_um, points_um, barcodes[order], edges, ordered, {}, pixels)


def _sum_inside(counts: sparse.csr_matrix | None, points_um: np.ndarray, tiling: Tiling) -> sparse.csr_matrix | None:
    """Sum the counts at the points into the squares that hold them (Eq. 6); None where nothing was measured."""
    return None if counts is None else sum_by_owner(counts, tiling.rows_of(points_um), len(tiling))


def _check_not_empty(counts: SlideCounts, *, slide_id: str) -> None:
    assays = {f"{um} µm bins": assay for um, assay in counts.bins.items()}
    if counts.spots is not None:
        assays["spots"] = counts.spots
    for name, assay in assays.items():
        if not len(assay):
            raise MagnetError(
                f"slide '{slide_id}'",
                expected=f"{name} in tissue",
                found="none",
                remedy="check image, counts and µm/px, or leave the slide out of samples.csv",
            )


def _pair(levels: list[Level], tilings: dict[str, Tiling]) -> list[Level]:
    """Fill `pairs`: the square that holds the centre, and each spot with its own centre patch."""
    by_name = {level.name: level for level in levels}
    for target in TARGETS.values():
        if target.fine not in by_name:
            continue
        fine = by_name[target.fine]
        for context in target.contexts:
            if context == CENTRE and CENTRE in by_name:
                fine.pairs[CENTRE] = np.arange(len(fine))
            elif context in tilings:
                fine.pairs[context] = _rows_in_level(by_name[context], tilings[context], fine.centres_um)
    return levels


def _rows_in_level(context: Level, tiling: Tiling, points_um: np.ndarray) -> np.ndarray:
    level_row_of_tile = np.empty(len(tiling), dtype=np.int64)
    level_row_of_tile[tiling.rows_of(context.centres_um)] = np.arange(len(tiling))
    level_rows: np.ndarray = level_row_of_tile[tiling.nearest_rows_of(points_um)]
    return level_rows


def _sample(
    assay: Assay, mpp: float, config: GeometryConfig, *, pitch_um: float, count: int, rng: np.random.Generator
) -> np.ndarray:
    return sample_rows(
        assay.centres_px * mpp, count, how=config.sampling, pitch_um=pitch_um, window=config.window, rng=rng
    )


def _wanted_spots(
    spots: Tiling, bin_points_um: list[np.ndarray], config: GeometryConfig, *, rng: np.random.Generator
) -> np.ndarray:
    """Return the spots that hold a sampled bin, their neighbours, and further sampled spots up to `config.spots`."""
    if config.sampling == "all":
        return np.arange(len(spots))
    held = np.unique(np.concatenate([np.empty(0, np.int64), *(spots.rows_of(points) for points in bin_points_um)]))
    kept = dilate(spots, held, hops=config.context_hops)
    others = np.setdiff1d(np.arange(len(spots)), kept)
    missing = min(config.spots - len(kept), len(others))
    if missing <= 0:
        return kept
    more = sample_rows(
        spots.centres_um[others],
        missing,
        how=config.sampling,
        pitch_um=config.spot_patch_um,
        window=max(config.window // 2, 1),
        rng=rng,
    )
    return np.union1d(kept, others[more])


def _cell_names(level: str, tiling: Tiling) -> np.ndarray:
    return np.array([f"{level}_{row:05d}_{column:05d}" for column, row in tiling.cells], dtype=np.str_)


def check_inside(levels: Sequence[Level], slide: ScaledSlide, sample: Sample) -> None:
    """Refuse coordinates that do not fit the image: another image, another resolution, or swapped axes."""
    size_um = np.array(slide.size_px) * slide.mpp
    for level in levels:
        if level.name == CENTRE:  # its centres are those of the spots, which are wider
            continue
        reach_um = level.patch_um / 2  # the square around a bin at the rim may have its centre beyond the rim
        outside = ((level.centres_um < -reach_um) | (level.centres_um > size_um + reach_um)).any(axis=1).mean()
        if outside > _OUTSIDE_ALLOWED:
            raise MagnetError(
                f"slide '{sample.slide_id}', level '{level.name}'",
                expected=f"centres inside the image ({size_um[0]:.0f} × {size_um[1]:.0f} µm)",
                found=f"{outside:.0%} of {len(level)} outside",
                remedy=f"check that {sample.image.name} is the full-resolution input image of these counts",
            )

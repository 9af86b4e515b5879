from collections.abc import Mapping

import numpy as np
import pytest
from scipy import sparse
from scipy.spatial import cKDTree

from extract.config import GeometryConfig
from extract.count_rows import CountRows
from extract.levels import Level, lay_levels, reading_order
from magnet_core.errors import MagnetError
from magnet_core.records import Assay, Genes, SlideCounts

MPP = 0.5
GENES = Genes(np.array(["g1", "g2", "g3"]), np.array(["G1", "G2", "G3"]))


def assay(columns: int, rows: int, pitch_um: float, rng: np.random.Generator) -> Assay:
    """Bins of a lattice in shuffled order, named by their column and row."""
    column, row = (axis.ravel() for axis in np.meshgrid(np.arange(columns), np.arange(rows)))
    order = rng.permutation(len(column))
    centres_um = np.stack([column, row], axis=1)[order] * pitch_um + 200.0
    names = np.array([f"x{x}y{y}" for x, y in zip(column[order], row[order], strict=True)])
    counts = sparse.csr_matrix(rng.poisson(1.0, size=(len(order), len(GENES))).astype(np.int32))
    return Assay(names, centres_um / MPP, counts, pitch_um=pitch_um)


def visium_hd(seed: int = 0) -> SlideCounts:
    rng = np.random.default_rng(seed)
    return SlideCounts("space_ranger_hd", GENES, {8: assay(96, 80, 8.0, rng), 16: assay(48, 40, 16.0, rng)})


def measured(counts: sparse.csr_matrix | CountRows | None) -> sparse.csr_matrix:
    assert counts is not None
    return counts.matrix() if isinstance(counts, CountRows) else counts


def lay(counts: SlideCounts, **settings: object) -> Mapping[str, Level]:
    config = GeometryConfig(**{"bins": 600, "spots": 40, "window": 12, **settings})  # type: ignore[arg-type]
    return {level.name: level for level in lay_levels(counts, MPP, config, slide_id="s")}


def test_visium_hd_gets_all_levels_and_every_bin_its_spot_and_region() -> None:
    levels = lay(visium_hd())
    assert set(levels) == {"bin_008um", "bin_016um", "spot", "centre", "region"}
    for fine, contexts in {
        "bin_008um": ("spot", "region"),
        "bin_016um": ("spot", "region"),
        "spot": ("region",),
    }.items():
        for context in contexts:
            centres = levels[context].centres_um
            paired = np.linalg.norm(centres[levels[fine].pairs[context]] - levels[fine].centres_um, axis=1)
            nearest = cKDTree(centres).query(levels[fine].centres_um)[0]
            np.testing.assert_allclose(paired, nearest, atol=1e-4)
    np.testing.assert_array_equal(levels["spot"].pairs["centre"], np.arange(len(levels["spot"])))
    np.testing.assert_array_equal(levels["centre"].centres_um, levels["spot"].centres_um)


def test_pairing_follows_coordinates_and_never_expression() -> None:
    counts = visium_hd()
    other = SlideCounts(
        counts.platform,
        GENES,
        {
            um: Assay(
                bins.barcodes,
                bins.centres_px,
                sparse.csr_matrix(measured(bins.counts).shape, dtype=np.int32),
                bins.pitch_um,
            )
            for um, bins in counts.bins.items()
        },
    )
    with_counts, without = lay(counts), lay(other)
    for name, level in with_counts.items():
        np.testing.assert_array_equal(level.centres_um, without[name].centres_um)
        for context, rows in level.pairs.items():
            np.testing.assert_array_equal(rows, without[name].pairs[context])


def test_the_order_in_which_a_platform_lists_its_bins_changes_nothing() -> None:
    counts = visium_hd()
    order = np.random.default_rng(9).permutation(len(counts.bins[8]))
    bins = counts.bins[8]
    shuffled = Assay(bins.barcodes[order], bins.centres_px[order], measured(bins.counts)[order], bins.pitch_um)
    plain, other = (
        lay(counts, sampling="all"),
        lay(SlideCounts("hd", GENES, {**counts.bins, 8: shuffled}), sampling="all"),
    )
    for name, level in plain.items():
        np.testing.assert_array_equal(level.barcodes, other[name].barcodes)
        np.testing.assert_array_equal(level.edges, other[name].edges)
        if level.counts is not None:
            np.testing.assert_array_equal(measured(level.counts).toarray(), measured(other[name].counts).toarray())


def test_each_row_keeps_its_own_barcode_position_and_counts() -> None:
    counts = visium_hd()
    level = lay(counts)["bin_016um"]
    row_of = {name: row for row, name in enumerate(counts.bins[16].barcodes.tolist())}
    rows = [row_of[name] for name in level.barcodes.tolist()]
    np.testing.assert_allclose(level.centres_um, counts.bins[16].centres_px[rows] * MPP)
    np.testing.assert_array_equal(measured(level.counts).toarray(), measured(counts.bins[16].counts)[rows].toarray())


def test_spots_and_regions_sum_all_finest_bins_inside_sampled_or_not() -> None:
    counts = visium_hd()
    levels = lay(counts)
    bins_um = counts.bins[8].centres_px * MPP
    for name in ("spot", "region"):
        level = levels[name]
        for row in range(0, len(level), 7):
            inside = (np.abs(bins_um - level.centres_um[row]) < level.patch_um / 2).all(axis=1)
            expected = measured(counts.bins[8].counts)[inside].sum(axis=0)
            np.testing.assert_array_equal(measured(level.counts)[row].toarray(), expected)


def test_spots_around_the_paired_ones_are_kept_for_their_graph() -> None:
    levels = lay(visium_hd(), spots=1)
    kept = {tuple(centre) for centre in levels["spot"].centres_um.round(3).tolist()}
    paired = levels["spot"].centres_um[np.unique(levels["bin_008um"].pairs["spot"])]
    low, high = paired.min(axis=0) - 1, paired.max(axis=0) + 1
    everything = lay(visium_hd(), sampling="all")["spot"].centres_um
    for centre in everything:
        steps = np.abs(paired - centre).max(axis=1).min() / 56.0
        if steps < 2.01 and (centre > low - 112).all() and (centre < high + 112).all():
            assert tuple(centre.round(3).tolist()) in kept


def test_a_spot_platform_gets_its_measured_spots_as_the_fine_level() -> None:
    rng = np.random.default_rng(4)
    levels = lay(SlideCounts("visium", GENES, spots=assay(20, 15, 100.0, rng)), spots=10_000)
    assert set(levels) == {"spot", "centre", "region"}
    spot, region = levels["spot"], levels["region"]
    assert len(spot) == 300
    assert spot.pixels
    total = np.zeros((len(region), len(GENES)))
    np.add.at(total, spot.pairs["region"], measured(spot.counts).toarray())
    np.testing.assert_array_equal(measured(region.counts).toarray(), total)
    assert levels["centre"].counts is None


def test_targets_that_are_not_asked_for_are_not_laid() -> None:
    assert set(lay(visium_hd(), targets=(8,))) == {"bin_008um", "spot", "region"}
    assert not lay(visium_hd(), targets=(8,))["spot"].pixels
    assert set(lay(visium_hd(), targets=(55,))) == {"spot", "centre", "region"}


def test_the_seed_and_the_slide_decide_the_sample() -> None:
    first, again = lay(visium_hd()), lay(visium_hd())
    np.testing.assert_array_equal(first["bin_008um"].barcodes, again["bin_008um"].barcodes)
    other = lay(visium_hd(), seed=1)
    assert set(first["bin_008um"].barcodes.tolist()) != set(other["bin_008um"].barcodes.tolist())


def test_reading_order_goes_by_bands_and_then_from_the_left() -> None:
    centres = np.array([[300.0, 10.0], [10.0, 130.0], [10.0, 100.0], [20.0, 20.0]])
    np.testing.assert_array_equal(reading_order(centres), [3, 2, 0, 1])


def test_bins_without_counts_get_the_levels_that_they_get_with_them() -> None:
    counts = visium_hd()
    unmeasured = {um: Assay(bins.barcodes, bins.centres_px, None, bins.pitch_um) for um, bins in counts.bins.items()}
    without = lay(SlideCounts("hne_only", Genes(GENES.ids[:0], GENES.names[:0]), unmeasured))
    for name, level in lay(counts).items():
        assert without[name].counts is None
        np.testing.assert_array_equal(without[name].barcodes, level.barcodes)
        np.testing.assert_array_equal(without[name].centres_um, level.centres_um)
        assert without[name].pairs.keys() == level.pairs.keys()


def test_a_slide_with_nothing_in_tissue_is_one_line() -> None:
    empty = assay(0, 0, 8.0, np.random.default_rng(0))
    with pytest.raises(MagnetError, match="slide 's': expected 8 µm bins in tissue, found none"):
        lay(SlideCounts("space_ranger_hd", GENES, {8: empty}))
    with pytest.raises(MagnetError, match="expected spots in tissue, found none"):
        lay(SlideCounts("visium", GENES, spots=empty))


def test_settings_are_checked() -> None:
    with pytest.raises(MagnetError, match="geometry.sampling: expected one of windows, uniform, all, found 'window'"):
        GeometryConfig(sampling="window")  # type: ignore[arg-type]
    with pytest.raises(MagnetError, match="some of 8, 16, 55"):
        GeometryConfig(targets=(2,))


def test_a_slide_of_spots_is_not_laid_for_bins_alone() -> None:
    counts = SlideCounts("visium", GENES, spots=assay(20, 15, 100.0, np.random.default_rng(0)))
    with pytest.raises(MagnetError, match=r"slide 's': expected 55 among --targets, .* found 8, 16; pass --targets 55"):
        lay(counts, targets=(8, 16))

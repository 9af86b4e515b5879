import numpy as np
import pytest
from scipy import sparse

from magnet_core.errors import MagnetError
from magnet_core.expression import columns_of, expression
from magnet_core.panel import LogStatistics, choose_panel, choose_variable_panel
from magnet_core.records import Genes
from magnet_core.settings.normalise import NormaliseConfig


def genes(*ids: str) -> Genes:
    return Genes(np.array(ids), np.array([f"name_{gene}" for gene in ids]))


def test_panel_holds_the_genes_of_highest_mean_with_slides_weighing_the_same() -> None:
    means = {"a": np.array([1.0, 5.0, 3.0]), "b": np.array([9.0, 0.0, 3.0])}  # slide b has its genes in another order
    panel = choose_panel(means, {"a": genes("g1", "g2", "g3"), "b": genes("g3", "g1", "g2")}, size=2)
    np.testing.assert_array_equal(panel.ids, ["g3", "g2"])  # 3 + 9, 5 + 3, against 1 + 0
    np.testing.assert_array_equal(panel.names, ["name_g3", "name_g2"])


def test_only_genes_of_every_training_slide_are_eligible() -> None:
    means = {"a": np.array([1.0, 100.0]), "b": np.array([1.0])}
    panel = choose_panel(means, {"a": genes("g1", "g2"), "b": genes("g1")}, size=1)
    np.testing.assert_array_equal(panel.ids, ["g1"])
    with pytest.raises(MagnetError, match="expected 2 genes measured on all 2 training slides, found 1 shared"):
        choose_panel(means, {"a": genes("g1", "g2"), "b": genes("g1")}, size=2)


def test_expression_is_proportional_to_the_library_of_the_panel_then_log() -> None:
    counts = sparse.csr_matrix(np.array([[1, 3, 96], [0, 0, 5]], dtype=np.int32))
    columns = columns_of(genes("g1", "g2", "g3"), ["g2", "g1"])
    values = expression(counts, columns, NormaliseConfig())
    np.testing.assert_allclose(values, np.log1p([[7500.0, 2500.0], [0.0, 0.0]]), rtol=1e-6)
    whole = expression(counts, columns, NormaliseConfig(library="all", log=False))
    np.testing.assert_allclose(whole, [[300.0, 100.0], [0.0, 0.0]], rtol=1e-6)
    raw = expression(counts, columns, NormaliseConfig(library="none", log=False))
    np.testing.assert_array_equal(raw, [[3, 1], [0, 0]])


def test_a_gene_that_was_not_measured_is_nan_and_counts_for_no_library() -> None:
    counts = sparse.csr_matrix(np.array([[1, 3]], dtype=np.int32))
    columns = columns_of(genes("g1", "g2"), ["g2", "absent"])
    np.testing.assert_array_equal(columns, [1, -1])
    values = expression(counts, columns, NormaliseConfig(log=False))
    np.testing.assert_allclose(values, [[10000.0, np.nan]])


def test_settings_are_checked() -> None:
    with pytest.raises(MagnetError, match="one of panel, all, none, found 'size'"):
        NormaliseConfig(library="size")  # type: ignore[arg-type]
    with pytest.raises(MagnetError, match="a positive number, found 0"):
        NormaliseConfig(scale=0)


def statistics(counts: np.ndarray) -> LogStatistics:
    logs = np.log1p(counts)
    return LogStatistics(len(counts), logs.sum(axis=0), (logs**2).sum(axis=0), (counts > 0).sum(axis=0))


def test_the_variable_panel_is_of_genes_that_vary_most_and_are_seen_on_every_slide() -> None:
    rng = np.random.default_rng(0)
    first = np.stack([rng.poisson(rate, size=40) for rate in (1, 4, 2, 9)], axis=1)
    second = np.stack([rng.poisson(rate, size=30) for rate in (9, 1, 2, 9)], axis=1)
    second[4:, 0] = 0  # the third gene of the other slide, in fewer than a tenth of its rows
    second[:4, 0] = 0
    second[0, 0] = 500
    tables = {"a": genes("g1", "g2", "g3", "g4"), "b": genes("g3", "g1", "g2", "g4")}
    chosen = choose_variable_panel({"a": statistics(first), "b": statistics(second)}, tables, size=2)
    together = np.log1p(np.concatenate([first, second[:, [1, 2, 0, 3]]])).var(axis=0)
    assert chosen.ids.tolist() == [f"g{1 + gene}" for gene in np.argsort(-together) if gene != 2][:2]
    with pytest.raises(MagnetError, match="expected 4 genes measured on all 2 training slides, found 3 shared genes"):
        choose_variable_panel({"a": statistics(first), "b": statistics(second)}, tables, size=4)


def test_genes_to_include_take_the_place_of_the_last_ones() -> None:
    means = {"a": np.array([5.0, 1.0, 9.0, 7.0])}
    table = {"a": genes("g1", "g2", "g3", "g4")}
    assert choose_panel(means, table, size=3, include=["g2"]).ids.tolist() == ["g3", "g4", "g2"]
    with pytest.raises(MagnetError, match=r"data.include: expected genes measured on all training slides, found g9"):
        choose_panel(means, table, size=3, include=["g9"])
    with pytest.raises(MagnetError, match=r"as the panel has, 1, found 2; raise data.panel to 2 or more"):
        choose_panel(means, table, size=1, include=["g2", "g3"])

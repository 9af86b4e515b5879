import math

import polars as pl
import pytest

from train.report.genes import against_ceiling, against_system, best_and_worst, by_gene
from train.report.parts import Table, Tables

NAMES = ("slide_id", "gene_id", "gene_name", "pcc", "ceiling")


def genes(*rows: tuple[str, str, str, float | None, float | None]) -> pl.DataFrame:
    return pl.DataFrame(
        rows, schema=dict.fromkeys(NAMES[:3], pl.String) | dict.fromkeys(NAMES[3:], pl.Float64), orient="row"
    )


def test_a_gene_is_the_mean_over_the_slides_on_which_it_varies() -> None:
    found = by_gene(
        genes(
            ("S1", "a", "A", 0.2, 0.5), ("S2", "a", "A", 0.4, 0.7), ("S3", "a", "A", math.nan, 0.9),
            ("S1", "b", "B", 0.5, None), ("S1", "c", "C", None, 0.5), ("S1", "d", "D", 0.1, 0.0),
        )
    )  # fmt: skip
    assert found["gene_name"].to_list() == ["B", "A", "D"]
    assert found["pcc"].to_list() == pytest.approx([0.5, 0.3, 0.1])
    assert found["slides"].to_list() == [1, 2, 1]
    assert found["ceiling"].to_list() == [None, pytest.approx(0.6), 0.0]
    assert found["share"].to_list() == [None, pytest.approx(0.5), None]


def test_the_best_come_first_and_the_worst_come_worst_first() -> None:
    many = by_gene(genes(*(("S1", f"g{index}", f"G{index}", index / 100, 0.5) for index in range(40))))
    (block,) = best_and_worst("8 µm", many)
    assert isinstance(block, Tables)
    best, worst = block.tables
    assert [row[0] for row in best.rows] == [f"G{index}" for index in range(39, 24, -1)]
    assert [row[0] for row in worst.rows] == [f"G{index}" for index in range(15)]
    assert best.rows[0] == ["G39", "0.390", "0.500", "0.78", "1"]


def test_few_genes_are_shown_once_and_none_not_at_all() -> None:
    few = by_gene(genes(("S1", "a", "A", 0.2, None), ("S1", "b", "B", 0.4, None)))
    (block,) = best_and_worst("8 µm", few)
    assert isinstance(block, Table)
    assert list(block.headings) == ["gene", "PCC", "slides"]
    assert block.rows == [["B", "0.400", "1"], ["A", "0.200", "1"]]
    assert best_and_worst("8 µm", few.clear()) == []


def test_points_are_named_and_left_out_where_nothing_is_known() -> None:
    known = by_gene(genes(("S1", "a", "A", 0.2, 0.8), ("S1", "b", "B", 0.4, None)))
    plot = against_ceiling("8 µm", known)
    assert plot is not None
    assert [mark.title for mark in plot.marks] == ["A: PCC 0.200, ceiling at most 0.800"]
    assert against_ceiling("8 µm", known.filter(pl.col("gene_id") == "b")) is None
    other = by_gene(genes(("S1", "b", "B", 0.1, None)))
    plot = against_system("8 µm", known, other, name="MagNet", other_name="ridge")
    assert plot is not None
    assert [mark.title for mark in plot.marks] == ["B: MagNet 0.400, ridge 0.100"]

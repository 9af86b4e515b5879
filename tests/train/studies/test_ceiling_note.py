import polars as pl
import pytest

from train.studies.ceiling_note import low_ceiling_note

NAMES = ("group", "system", "fold", "slide_id", "gene_id", "ceiling", "ceiling_low")


def genes(*rows: tuple[object, ...]) -> pl.DataFrame:
    return pl.DataFrame(list(rows), schema=NAMES, orient="row")


def test_it_is_the_mean_over_genes_then_slides_then_folds_of_genes_that_have_both() -> None:
    of_slides = [
        (0, "S1", "a", 0.4, 0.2), (0, "S1", "b", 0.6, 0.4), (0, "S1", "c", 0.9, None),
        (0, "S1", "d", 0.9, float("nan")), (0, "S2", "a", 0.7, 0.1), (1, "S3", "a", 0.2, 0.2),
    ]  # fmt: skip
    table = genes(*(("8 µm", system, *each) for system in ("MagNet", "gene mean") for each in of_slides))
    assert "about 0.200 at 8 µm, not 0.400, over 2 of 4 genes (those" in low_ceiling_note(table)


def test_groups_stand_one_after_another_and_those_without_bins_that_touch_are_left_out() -> None:
    table = genes(
        ("8 µm", "MagNet", 0, "S1", "a", 0.4, 0.2),
        ("16 µm", "MagNet", 0, "S1", "a", 0.6, 0.5),
        ("55 µm", "MagNet", 0, "S1", "a", 0.8, None),
    )
    said = "about 0.200 at 8 µm, not 0.400, over 1 of 1 genes; 0.500 at 16 µm, not 0.600, over 1 of 1 genes (those"
    assert said in low_ceiling_note(table)


@pytest.mark.parametrize("lacking", ["ceiling_low", "ceiling"])
def test_of_a_table_of_before_nothing_is_said(lacking: str) -> None:
    assert low_ceiling_note(genes(("8 µm", "MagNet", 0, "S1", "a", 0.4, 0.2)).drop(lacking)) == ""
    assert low_ceiling_note(genes(("8 µm", "MagNet", 0, "S1", "a", 0.4, None))) == ""
    assert low_ceiling_note(pl.DataFrame()) == ""

import math

from train.evaluation.scores import text_table


def test_the_table_on_screen_has_a_line_a_system_and_says_what_is_not_known():
    constant = {"mse": 1.5, "mae": 0.5, "pcc_bin": math.nan, "pcc_gene": math.nan}
    learnt = {"mse": 12.123456, "mae": 0.1, "pcc_bin": -0.25, "pcc_gene": 0.75}
    headings, *rows = text_table({"gene_mean": constant, "magnet": learnt}).splitlines()
    assert headings.split("  ")[-1] == "PCC per gene"
    assert [row.split() for row in rows] == [
        ["gene", "mean", "1.5000", "0.5000", "nan", "nan"],
        ["MagNet", "12.1235", "0.1000", "-0.2500", "0.7500"],
    ]
    assert len({len(line) for line in (headings, *rows)}) == 1

import math
from pathlib import Path

from train.report.study import fold_of, main_line, read_lines, systems_table
from train.studies.render import csv_table
from train.studies.summary import Line, Statistic
from train.systems.table import CEILING_TITLE


def line(title: str, pcc: float | None, *, behind: bool = False) -> Line:
    metrics = {} if pcc is None else {"mse": Statistic(1.0, 0.1), "pcc_gene": Statistic(pcc, 0.1)}
    gain = Statistic(0.1, 0.0) if behind else None
    return Line("8 µm", title, False, 2, 2, metrics, 0.5, gain, None)


def test_the_main_line_is_the_one_others_are_behind() -> None:
    ceiling = Line("8 µm", CEILING_TITLE, False, 2, 2, {"pcc_gene": Statistic(0.9, 0.0)}, 1.0, None, None)
    lines = [line("gene mean", 0.0, behind=True), line("MagNet", 0.2), line("ridge", 0.3, behind=True), ceiling]
    found = main_line(lines, "8 µm")
    assert found is not None
    assert found.title == "MagNet"


def test_where_none_is_ours_the_main_line_is_the_best() -> None:
    lines = [line("gene mean", 0.0), line("ridge", 0.3), line("failed", None)]
    found = main_line(lines, "8 µm")
    assert found is not None
    assert found.title == "ridge"
    assert main_line([line("failed", None)], "8 µm") is None


def test_a_number_that_is_not_known_is_read_as_such(tmp_path: Path) -> None:
    unknown = Statistic(math.nan, math.nan)
    metrics = {"mse": Statistic(1.5, math.nan), "mae": unknown, "pcc_bin": unknown, "pcc_gene": unknown}
    written = [Line("8 µm", "constant", False, 1, 1, metrics, math.nan, None, None), line("failed", None)]
    csv_table(written).write_csv(tmp_path / "table.csv")
    constant, failed = read_lines(tmp_path / "table.csv")
    assert constant.metrics["mse"].mean == 1.5
    assert math.isnan(constant.metrics["pcc_gene"].mean)
    assert failed.metrics == {}
    table = systems_table([constant, failed], {})
    assert table.rows[0][2:6] == ["1.500", "–", "–", "–"]
    assert table.best == {(0, 2)}


def test_the_ceiling_of_a_table_of_before_is_an_upper_bound_too(tmp_path: Path) -> None:
    before = Line("8 µm", "noise ceiling", False, 2, 2, {"pcc_gene": Statistic(0.9, 0.0)}, 1.0, None, None)
    csv_table([line("MagNet", 0.2), before]).write_csv(tmp_path / "table.csv")
    magnet, ceiling = read_lines(tmp_path / "table.csv")
    assert (magnet.title, ceiling.title) == ("MagNet", CEILING_TITLE)
    assert ceiling.metrics["pcc_gene"].mean == 0.9


def test_the_fold_is_read_from_a_cells_name() -> None:
    assert fold_of("magnet-8um-timm-folded-net-fold3-0123456789ab") == "fold 3"
    assert fold_of(Path("cells/magnet").name) == "magnet"

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from matplotlib.collections import EllipseCollection
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from PIL import Image
from typer.testing import CliRunner

from cache.picture import Picture
from magnet_core.errors import MagnetError
from tests.train.setting import edited
from train.cli import app
from train.places import read_record
from train.report.curve_figure import draw_curves
from train.report.folder import TrainingHistory
from train.report.map_choice import MapRequest, choose_maps, unlike_maps
from train.report.map_figure import draw_maps
from train.report.slide_maps import SlideMap, find_slide_maps
from train.report.static import save
from train.report.study import read_lines
from train.report.table_cells import cells_of
from train.report.table_figure import draw_table

Copy = Callable[[Path], Path]


@pytest.fixture(scope="module")
def slide_map(mapped: Path) -> SlideMap:
    source = find_slide_maps(mapped)[0]
    return source.read(source.panel.names[:2].tolist())


def ends_of(scale: Any) -> np.ndarray:
    """The values of the lowest and the highest colour (2,)."""
    return np.array([scale.vmin, scale.vmax], dtype=float)


def drawn(line: Line2D) -> tuple[list[float], list[float]]:
    """The points of a line: all x, and all y."""
    return np.asarray(line.get_xdata()).tolist(), np.asarray(line.get_ydata()).tolist()


def words_of(figure: Figure) -> list[str]:
    """All that is written on a figure, panel by panel."""
    own = [text.get_text() for text in figure.texts]
    in_panels = [
        text
        for axes in figure.axes
        for text in (axes.get_title(), axes.get_ylabel(), axes.get_xlabel(), *(each.get_text() for each in axes.texts))
    ]
    return [text for text in own + in_panels if text]


def run(*arguments: object) -> str:
    result = CliRunner().invoke(app, ["figure", *map(str, arguments)], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


def refused(*arguments: object) -> str:
    """The one line of a mistake."""
    with pytest.raises(MagnetError) as told:
        CliRunner().invoke(app, ["figure", *map(str, arguments)], catch_exceptions=False)
    return str(told.value)


def test_each_bin_has_its_value_at_its_place(slide_map: SlideMap) -> None:
    figure = draw_maps(slide_map)
    lattice = slide_map.lattice
    assert lattice is not None
    assert slide_map.truth is not None
    expected = [slide_map.truth, *slide_map.predictions.values()]
    panels = [axes for axes in figure.axes if len(axes.images) == 2]  # the tissue, and a map on it
    assert len(panels) == 2 * len(expected)
    for place, axes in enumerate(panels):
        values, image = expected[place % len(expected)][:, place // len(expected)], axes.images[1]
        cells = np.asarray(image.get_array())
        for row in (0, len(values) // 2, len(values) - 1):
            at = lattice.cells[row]
            assert cells[tuple(at)] == values[row]
            drawn_at = image.get_transform().transform(at[::-1])
            np.testing.assert_allclose(drawn_at, axes.transData.transform(slide_map.centres_um[row]), atol=0.5)
        assert np.ma.getmaskarray(np.ma.asarray(image.get_array())).sum() == cells.size - len(values)
        assert axes.get_ylim()[0] > axes.get_ylim()[1]  # y runs down


def test_a_gene_has_one_scale_and_its_pcc_below_each_title(mapped: Path, slide_map: SlideMap) -> None:
    figure = draw_maps(slide_map, systems=["MagNet", "gene mean"], ceilings={slide_map.genes.names[0]: 0.815})
    scales = [axes.images[1].norm for axes in figure.axes if len(axes.images) == 2]
    assert len(scales) == 6
    assert len({id(each) for each in scales[:3]}) == len({id(each) for each in scales[3:]}) == 1
    assert (ends_of(scales[0]) != ends_of(scales[3])).any()
    assert slide_map.truth is not None
    np.testing.assert_allclose(ends_of(scales[0]), np.nanpercentile(slide_map.truth[:, 0], (1, 99)))
    genes = pl.read_parquet(mapped / "genes.parquet").filter(
        pl.col("system") == "MagNet", pl.col("slide_id") == slide_map.slide_id, pl.col("group") == slide_map.group
    )
    pcc = dict(genes.select("gene_name", "pcc").iter_rows())
    names = slide_map.genes.names.tolist()
    words = words_of(figure)
    assert f"MagNet\nPCC {pcc[names[0]]:.2f}" in words
    assert f"PCC {pcc[names[1]]:.2f}" in words
    assert {"measured\nceiling ≤ 0.81", "gene mean\nPCC 0.00", "H&E", "100 µm", *names} <= set(words)
    assert words.count("normalised expression") == 2
    assert any(text == f"{slide_map.slide_id}, {len(slide_map.centres_um)} bins of 8 µm" for text in words)


def test_without_counts_or_a_picture_maps_are_drawn_alone(slide_map: SlideMap) -> None:
    bare = replace(slide_map, truth=None, picture=None, learnt_from=True)
    figure = draw_maps(bare, systems=["MagNet"])
    words = words_of(figure)
    assert "MagNet" in words
    assert not any("PCC" in text or "H&E" in text for text in words)
    assert any("a slide that was learnt from" in text for text in words)
    assert "100 µm" in words
    axes = next(each for each in figure.axes if each.get_title() == "MagNet")
    wide = np.percentile(np.concatenate([each[:, 0] for each in bare.predictions.values()]), (1, 99))
    np.testing.assert_allclose(ends_of(axes.images[0].norm), wide)


def test_spots_on_no_lattice_are_discs_of_their_size(slide_map: SlideMap) -> None:
    spots = replace(slide_map, barcodes=np.array([f"ACGT{row}-1" for row in range(len(slide_map.barcodes))]), um=56)
    figure = draw_maps(spots, systems=["MagNet"])
    discs = [each for axes in figure.axes for each in axes.collections if isinstance(each, EllipseCollection)]
    assert len(discs) == 4
    np.testing.assert_array_equal(discs[1].get_array(), spots.predictions["MagNet"][:, 0])
    np.testing.assert_array_equal(discs[1].get_offsets(), spots.centres_um)
    assert any("spots of 56 µm" in text for text in words_of(figure))


def test_the_tissue_lies_where_its_pixels_are(slide_map: SlideMap) -> None:
    pixels = np.full((200, 300, 3), 255, np.uint8)
    pixels[100:110, 150:160] = 0
    figure = draw_maps(replace(slide_map, picture=Picture(pixels, 2.0)), systems=["MagNet"])
    tissue = next(axes.images[0] for axes in figure.axes if axes.get_title() == "H&E")
    left, right, bottom, top = tissue.get_extent()
    shown = np.asarray(tissue.get_array())[..., 0]
    rows, columns = np.nonzero(shown == 0)
    to_x, to_y = (right - left) / shown.shape[1], (bottom - top) / shown.shape[0]
    assert (left + columns.min() * to_x, left + (columns.max() + 1) * to_x) == pytest.approx((300, 320))
    assert (top + rows.min() * to_y, top + (rows.max() + 1) * to_y) == pytest.approx((200, 220))


def test_words_are_text_in_svg_and_pdf_and_the_same_figure_is_the_same_file(
    slide_map: SlideMap, tmp_path: Path
) -> None:
    for name in ("one", "two"):
        for form in ("svg", "pdf"):
            save(draw_maps(slide_map, systems=["MagNet"]), tmp_path / f"{name}.{form}", form)
    svg = (tmp_path / "one.svg").read_text(encoding="utf-8")
    written = re.findall(r"<text[^>]*>(?:<tspan[^>]*>)?([^<]+)<", svg)
    assert {"MagNet", "measured", "100 µm", "normalised expression", *slide_map.genes.names.tolist()} <= set(written)
    pdf = (tmp_path / "one.pdf").read_bytes()
    assert b"/FontFile2" in pdf  # TrueType, which stays text
    assert b"/Type3" not in pdf
    for form in ("svg", "pdf"):
        assert (tmp_path / f"one.{form}").read_bytes() == (tmp_path / f"two.{form}").read_bytes()
    lattice = slide_map.lattice
    assert lattice is not None
    height, width = lattice.shape
    assert re.search(rb"/Height %d\s" % height, pdf)  # a pixel a bin
    assert re.search(rb"/Width %d\s" % width, pdf)


def test_the_command_alone_draws_the_best_genes_of_one_slide_over_the_tissue(mapped: Path, copy_of: Copy) -> None:
    folder = copy_of(mapped)
    (choice,) = choose_maps(folder, MapRequest())
    genes = pl.read_parquet(folder / "genes.parquet").filter(
        pl.col("group") == "8 µm", pl.col("system") == "MagNet", pl.col("slide_id") == choice.source.slide_id
    )
    best = genes.with_columns(pl.col("pcc").fill_nan(None)).drop_nulls("pcc").sort("pcc", descending=True)
    ranks = [best["gene_name"].to_list().index(gene) for gene in choice.genes]
    assert len(ranks) == 3
    assert ranks[0] == 0
    assert ranks == sorted(ranks)
    assert choice.systems[0] == "MagNet"
    assert "gene mean" not in choice.systems
    assert choice.ceilings[choice.genes[0]] == pytest.approx(best["ceiling"][0])
    said = run("maps", folder)
    path = folder / "figures" / f"maps-{choice.source.slide_id}-8um.png"
    assert said.startswith(f"figure: {path} (")
    with Image.open(path) as image:
        assert min(image.size) > 300
        colours = np.unique(np.asarray(image.convert("RGB")).reshape(-1, 3), axis=0)
    assert len(colours) > 100


def test_a_gene_whose_map_is_like_a_better_ones_is_passed_over() -> None:
    rng = np.random.default_rng(0)
    one, other = rng.normal(size=(2, 500))
    maps = np.column_stack([one, 2 * one + 1 + 0.1 * other, -one, other, one + other])
    assert unlike_maps(maps) == [0, 3, 4]


def test_what_is_asked_for_is_drawn(mapped: Path, copy_of: Copy, tmp_path: Path) -> None:
    folder = copy_of(mapped)
    gene = str(find_slide_maps(folder)[-1].panel.names[5])
    ask = MapRequest(genes=(gene,), slides=("all",), systems=("gene_mean", "MagNet"), target=55)
    choices = choose_maps(folder, ask)
    assert [(each.source.group, each.genes) for each in choices] == [("55 µm", [gene])] * 2
    assert choices[0].systems == ["gene mean", "MagNet"]
    assert choose_maps(folder, MapRequest(systems=("all",)))[0].systems == ["colour ridge", "MagNet", "gene mean"]
    slide = choices[1].source.slide_id
    out = tmp_path / "one.svg"
    run("maps", folder, "--genes", gene, "--slides", slide, "--systems", "magnet", "--target", 55, "--out", out)
    svg = out.read_text(encoding="utf-8")
    assert f">{gene}<" in svg
    assert ">gene mean<" not in svg


def test_the_table_and_curves_of_a_run_are_drawn(mapped: Path, copy_of: Copy) -> None:
    folder = copy_of(mapped)
    assert run("table", folder, "--format", "pdf") == run("table", folder, "--format", "pdf")
    assert (folder / "figures" / "table.pdf").stat().st_size > 1000
    run("curves", folder, "--format", "svg")
    svg = (folder / "figures" / "curves.svg").read_text(encoding="utf-8")
    for word in ("epoch", "MagNet", "8 µm, training: mean loss of an epoch", "55 µm, training: mean loss of an epoch"):
        assert f">{word}<" in svg


def test_every_number_of_the_table_is_on_its_figure(mapped: Path) -> None:
    lines = read_lines(mapped / "table.csv")
    figure = draw_table(lines, {"8 µm": "MagNet", "55 µm": "MagNet"}, "title & more")
    words = words_of(figure)
    for line in lines:
        assert line.title in words
        for value in line.metrics.values():
            assert f"{value.mean:.3f}±{value.sd:.3f}" in words
    assert {"title & more", "8 µm", "55 µm", "÷ ceiling"} <= set(words)
    panels = [axes for axes in figure.axes if axes.lines and axes.get_xlabel()]
    ours = next(line for line in lines if line.title == "MagNet").metrics["pcc_gene"]
    assert any(ours.mean in drawn(each)[0] for each in panels[0].lines)
    assert any(drawn(each)[0] == [ours.low, ours.high] for each in panels[0].lines)


def test_a_curve_is_a_fold_and_a_dot_the_epoch_kept() -> None:
    one = TrainingHistory([3.0, 2.0, 1.5], [0.1, 0.3, 0.2], 2, "")
    other = TrainingHistory([3000.0, float("nan")], [], 1, "")
    figure = draw_curves({"8 µm": [("A", "fold 0", one), ("A", "fold 1", one), ("B", "fold 0", other)]}, "title")
    losses, scores = figure.axes
    assert losses.get_yscale() == "log"
    assert [drawn(line)[1] for line in losses.lines[:3]] == [[3.0, 2.0, 1.5], [2.0], [3.0, 2.0, 1.5]]
    assert [drawn(line) for line in scores.lines] == [
        ([1, 2, 3], [0.1, 0.3, 0.2]), ([2], [0.3])
    ] * 2  # fmt: skip
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["A", "B"]
    (alone,) = draw_curves({"8 µm": [("B", "fold 0", other)]}, "title").axes
    assert alone.get_yscale() == "linear"


def test_mistakes_are_one_line(mapped: Path, tmp_path: Path) -> None:
    gene = str(find_slide_maps(mapped)[0].panel.names[0])
    tested = read_record(mapped)["folds"]["0"]["test"][0]
    assert "--genes: expected genes of a panel of 20, found 'SYNX'" in refused(
        "maps", mapped, "--genes", f"{gene},SYNX"
    )
    assert f"did you mean {gene}" in refused("maps", mapped, "--genes", gene.lower())
    assert "--slides: expected a slide that was tested, or predicted whole, found 'S9'; name one of " in refused(
        "maps", mapped, "--slides", "S9"
    )
    assert "--systems: expected a known name, found 'magnets'; did you mean" in refused(
        "maps", mapped, "--systems", "magnets"
    )
    assert "--target: expected a known name, found '16 µm'; did you mean" in refused("maps", mapped, "--target", 16)
    assert "--whole: expected slides that 'train predict' wrote, found none" in refused("maps", mapped, "--whole")
    assert "--format: expected a known name, found 'gif'; choose one of: pdf, png, svg" in refused(
        "maps", mapped, "--format", "gif"
    )
    assert "--out: expected a name ending in .pdf, found" in refused(
        "table", mapped, "--format", "pdf", "--out", "a.png"
    )
    assert "--out: expected a known name, found 'jpg'" in refused("table", mapped, "--out", "a.jpg")
    both = refused("maps", mapped, "--slides", "all", "--out", tmp_path / "a.png")
    assert f"--out: expected one figure, found 2: maps-{tested}-8um, maps-" in both
    assert "--genes: expected it with 'train figure maps', found table; leave it out" in refused(
        "table", mapped, "--genes", gene
    )
    assert "expected the folder of a result, found no folder" in refused("curves", tmp_path / "none")
    assert not list(mapped.glob("figures"))


def test_a_folder_without_what_is_drawn_is_one_line(mapped: Path, copy_of: Copy) -> None:
    folder = copy_of(mapped)
    (folder / "sweep.json").write_text("{}")
    record = read_record(folder)
    for group in ("8 µm", "55 µm"):
        for cells in cells_of(record, folder, group):
            for path in cells.folders.values():
                (path / "cell.json").unlink()
                (path / "run.json").unlink(missing_ok=True)
    edited(folder / "study.json", lambda _: None)
    assert "expected predictions of its cells, and the store they are of, found none" in refused("maps", folder)
    assert "expected a system that was trained in epochs, and its cell, found none in 12 cells" in refused(
        "curves", folder
    )
    (folder / "study.json").unlink()
    assert "expected a table's folder, with study.json, found a sweep" in refused("maps", folder)

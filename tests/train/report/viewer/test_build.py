import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from magnet_core.errors import MagnetError
from tests.train.report.reading import read_page
from tests.train.report.viewer.made import made_page, made_source
from train.report.page import kind_of
from train.report.viewer import build, catalogue
from train.report.viewer.catalogue import scale_of, scores_of
from train.report.viewer.raster import turned_back


def facts_of(text: str) -> list[dict[str, Any]]:
    (found,) = re.findall(r'<script type="application/json" id="maps">(.*?)</script>', text, re.DOTALL)
    facts: list[dict[str, Any]] = json.loads(found)
    return facts


def words_of(text: str) -> dict[str, str]:
    return dict(re.findall(r'<script type="text/plain" id="([\w-]+)">(.*?)</script>', text))


def test_all_genes_of_a_small_page_are_inside(tmp_path: Path) -> None:
    text = made_page(tmp_path / "page.html", made_source(), made_source(slide_id="B", measured=False))
    words = words_of(text)
    assert {name for name in words if "gene" in name} == {f"map-{i}-gene-{j}" for i in (0, 1) for j in range(3)}
    assert {name for name in words if name.startswith("map-0") and "gene" not in name} == {
        "map-0-rows", "map-0-barcodes", "map-0-picture"
    }  # fmt: skip
    assert [path.name for path in tmp_path.iterdir()] == ["page.html"]
    assert len(text) < 2_500_000
    read_page(text)


def test_genes_beyond_a_pages_size_lie_in_a_folder_beside_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = tmp_path / "page.html"
    whole = words_of(made_page(page, made_source()))
    monkeypatch.setattr(build, "WORDS_BYTES", len(whole["map-0-gene-0"]) + 10)
    text = made_page(page, made_source())
    assert [name for name in words_of(text) if "gene" in name] == ["map-0-gene-0"]  # the best
    folder = tmp_path / "page-genes"
    assert sorted(path.name for path in folder.iterdir()) == ["map-0-gene-1.js", "map-0-gene-2.js"]
    key = facts_of(text)[0]["page"]
    assert f'["{key}/map-0-gene-1"] = "{whole["map-0-gene-1"]}"' in (folder / "map-0-gene-1.js").read_text()
    assert "1 of 3 maps are in this page" in text
    assert "<code>page-genes</code>" in text
    monkeypatch.undo()
    made_page(page, made_source())
    assert not folder.exists()  # its genes are in the page again


def test_genes_that_are_wanted_are_inside_and_shown_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page, source = tmp_path / "page.html", made_source()
    whole = words_of(made_page(page, source))
    monkeypatch.setattr(build, "WORDS_BYTES", len(whole["map-0-gene-2"]) + 10)
    text = made_page(page, source, wanted=[source.panel.names[2]])
    assert [name for name in words_of(text) if "gene" in name] == ["map-0-gene-2"]
    assert facts_of(text)[0]["best"] == 2
    with pytest.raises(MagnetError, match="--genes: .*'NONE'"):
        made_page(page, source, wanted=["NONE"])


def test_a_folder_of_others_beside_a_page_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "page-genes").mkdir()
    (tmp_path / "page-genes" / "mine.txt").write_text("mine")
    made_page(tmp_path / "page.html", made_source())
    monkeypatch.setattr(build, "WORDS_BYTES", 0)
    with pytest.raises(
        MagnetError, match="page-genes: expected no such folder, .* found other files; name another --out"
    ):
        made_page(tmp_path / "page.html", made_source())
    assert (tmp_path / "page-genes" / "mine.txt").read_text() == "mine"
    assert not (tmp_path / "page-genes.partial").exists()


def test_names_of_genes_and_slides_end_no_element_and_are_told_apart(tmp_path: Path) -> None:
    evil = "</script><script>alert(1)</script>"
    source = made_source(names=("TWICE", "TWICE", evil), slide_id="<b>")
    text = made_page(tmp_path / "page.html", source)
    page = read_page(text)
    assert "b" not in page.tags
    assert evil not in text
    assert facts_of(text)[0]["genes"]["name"] == ["TWICE (ID0)", "TWICE (ID1)", evil]


def test_a_slide_is_read_some_genes_at_a_time_to_the_same_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = made_page(tmp_path / "page.html", made_source())
    monkeypatch.setattr(catalogue, "VALUES_AT_ONCE", 2 * 400)
    parts = made_page(tmp_path / "page.html", made_source())
    assert (facts_of(parts), words_of(parts)) == (facts_of(whole), words_of(whole))


def test_what_a_slide_is_told_of_is_what_its_values_say(tmp_path: Path) -> None:
    source = made_source()
    (facts,) = facts_of(made_page(tmp_path / "page.html", source))
    made = source.whole_map
    assert made.truth is not None
    expected = np.corrcoef(made.truth[:, 1], made.predictions["MagNet"][:, 1])[0, 1]
    assert facts["genes"]["pcc"][1] == [pytest.approx(expected, abs=1e-3), 0]  # a constant explains nothing
    assert facts["genes"]["mean"][1] == pytest.approx(made.truth[:, 1].mean(), rel=1e-3)
    assert facts["systems"] == ["MagNet", "gene mean"]
    assert facts["best"] == 0
    assert (facts["truth"], facts["deviation"], facts["shape"]) == (True, False, [20, 20])


def test_the_picture_turns_with_the_bins(tmp_path: Path) -> None:
    source, angle = made_source(), 0.2
    turned = replace(source.whole_map, centres_um=turned_back(source.whole_map.centres_um, -angle))
    (facts,) = facts_of(made_page(tmp_path / "page.html", replace(source, whole_map=turned)))
    left, top, width, height, by = facts["picture"]
    middle = np.array([left + width / 2, top + height / 2])
    shown = middle + turned_back(turned.centres_um - [width / 2, height / 2], by)  # Bokeh turns about the middle
    first = [facts["left"] + facts["step"] / 2, facts["top"] + facts["step"] / 2]
    np.testing.assert_allclose(shown[0], first, atol=1e-6)
    assert by == pytest.approx(angle)


def test_spots_that_stand_apart_have_no_outline(tmp_path: Path) -> None:
    source = made_source(side=3)
    places = np.random.default_rng(0).permutation(9)[:, None] * [70.0, 31.0] + 100
    apart = replace(source.whole_map, centres_um=places, um=56, barcodes=np.array([f"{i}x1" for i in range(9)]))
    (facts,) = facts_of(made_page(tmp_path / "page.html", replace(source, whole_map=apart)))
    assert facts["outline"] == [[], [], [], []]
    (facts,) = facts_of(made_page(tmp_path / "page.html", source))
    assert [len(ends) for ends in facts["outline"]] == [4, 4, 4, 4]


def test_a_slide_that_was_learnt_from_is_said_to_be(tmp_path: Path) -> None:
    source = made_source()
    learnt = replace(source, learnt_from=True, whole_map=replace(source.whole_map, learnt_from=True))
    assert kind_of(replace(learnt, whole=True)) == ", whole, learnt from"
    assert kind_of(source) == ""
    text = made_page(tmp_path / "page.html", learnt)
    assert "a slide that was learnt from" in text
    assert facts_of(text)[0]["learnt"]


def test_bins_that_were_not_measured_are_left_out_of_a_score() -> None:
    made = made_source().read()
    assert made.truth is not None
    truth = made.truth.copy()
    truth[3, 0] = np.nan
    truth[:, 1] = np.nan
    ours = np.where(np.isnan(truth), np.float32(900), truth)
    predictions = {"ours": ours, "constant": np.ones_like(truth)}
    of_ours, of_constant = scores_of(replace(made, truth=truth, predictions=predictions))
    np.testing.assert_allclose(of_ours, np.array([[1, 0], [np.nan, np.nan], [1, 0]]), atol=1e-6)
    np.testing.assert_array_equal(of_constant[:, 0], [0, np.nan, 0])  # as in tables


def test_colours_differ_also_where_all_values_are_equal() -> None:
    assert scale_of(np.zeros(5, np.float32)) == (0, 0.001)
    assert scale_of(np.full(5, np.nan, np.float32)) == (0, 1)

"""The page in Chromium, as one who looks through it, by pointer and by keyboard; nothing is asked of a network."""

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from playwright.sync_api import Browser, Locator, Page, sync_playwright

from tests.train.report.viewer.made import MadeSource, made_page, made_source
from train.report.page import write_report
from train.report.slide_maps import find_slide_maps
from train.report.viewer import build
from train.report.viewer.maps import KINDS

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(
        CHROMIUM is None, reason="no Chromium here: apt-get install chromium, and the page is looked at"
    ),
]
NAMES = ("AAA", "ABB", "CCC", "<i>D&D")
DEEPEST = """() => {
  let at = document.activeElement
  while (at?.shadowRoot?.activeElement) at = at.shadowRoot.activeElement
  const root = at?.getRootNode()
  const label = at?.id && root.querySelector(`label[for="${at.id}"]`)?.textContent
  const around = at?.closest("label")?.textContent || at?.getAttribute("aria-label")
  return label || around || at?.textContent.slice(0, 40) || at?.tagName
}"""
FIGURE = "([name, at]) => { const it = Bokeh.documents[0].get_model_by_name(name); return %s }"

Opener = Callable[..., Page]


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def opened(chromium: Browser) -> Iterator[Opener]:
    """Opens pages, and sees at the end that they were quiet: nothing in the console, nothing asked for elsewhere."""
    contexts, said = [], list[str]()

    def open_page(path: Path, *, width: int = 1400, look: str = "light", quiet: bool = True) -> Page:
        context = chromium.new_context(
            viewport={"width": width, "height": 900}, color_scheme="dark" if look == "dark" else "light"
        )
        context.set_default_timeout(60_000)
        contexts.append(context)
        page = context.new_page()
        if quiet:
            page.on("console", lambda told: said.append(told.text) if told.type in ("error", "warning") else None)
            page.on("pageerror", lambda error: said.append(str(error)))
            page.on("request", lambda asked: said.append(asked.url[:200]) if is_elsewhere(asked.url, path) else None)
        page.goto(path.as_uri())
        page.locator("[role=status], [role=alert]").wait_for()
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert said == []


def is_elsewhere(url: str, path: Path) -> bool:
    """Whether an address is none of the page, its folder, or what the page made itself."""
    return not (url == path.as_uri() or url.startswith(("data:", "blob:", path.with_suffix("").as_uri())))


@pytest.fixture(scope="module")
def source() -> MadeSource:
    return made_source(side=30, names=NAMES)


@pytest.fixture(scope="module")
def made(source: MadeSource, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A page of two slides: a measured one, and one that was only predicted, by an ensemble."""
    page = tmp_path_factory.mktemp("made") / "page.html"
    made_page(page, source, made_source(slide_id="B", side=12, names=NAMES[::-1], measured=False))
    return page


def painted(page: Page, kind: str) -> bytes:
    """A map as it is seen."""
    page.wait_for_timeout(300)
    return page.locator(f"#map-{kind}").screenshot()


def unchanged(page: Page, before: dict[str, bytes]) -> list[str]:
    """Which maps look as they did before, though they were waited for."""
    left = list(before)
    for _ in range(20):
        left = [kind for kind in left if painted(page, kind) == before[kind]]
        if not left:
            break
    return left


def ranges(page: Page, kind: str) -> list[float]:
    it: list[float] = page.evaluate(
        FIGURE % "[it.x_range.start, it.x_range.end, it.y_range.start, it.y_range.end]", [f"map_{kind}", 0]
    )
    return it


def point_at(page: Page, kind: str, x: float, y: float) -> None:
    """Rest the pointer on a place (µm) of a map."""
    left, right, bottom, top = ranges(page, kind)
    canvas = page.locator(f"#map-{kind} canvas").first
    canvas.scroll_into_view_if_needed()
    box = canvas.bounding_box()
    assert box is not None
    page.mouse.move(box["x"] + 1, box["y"] + 1)
    page.mouse.move(
        box["x"] + (x - left) / (right - left) * box["width"], box["y"] + (y - top) / (bottom - top) * box["height"]
    )


def tooltip(page: Page) -> dict[str, str]:
    """What the tooltip of a map says, by its names."""
    page.wait_for_timeout(300)
    labels, values = (page.locator(f".bk-tooltip-row-{part}").locator("visible=true") for part in ("label", "value"))
    labels.first.wait_for()
    names = [text.strip().rstrip(":") for text in labels.all_inner_texts()]
    return dict(zip(names, [text.strip() for text in values.all_inner_texts()], strict=True))


def gene_field(page: Page) -> Locator:
    return page.get_by_label("Gene (type to search)")


def pick_gene(page: Page, typed: str, name: str) -> None:
    gene_field(page).fill("")
    gene_field(page).press_sequentially(typed)
    page.get_by_text(name, exact=True).locator("visible=true").first.click()
    page.get_by_role("status").filter(has_text=name).wait_for()


def genes_listed(page: Page) -> list[str]:
    return page.locator("#genes tbody button").all_inner_texts()


def test_a_gene_is_typed_and_picked_and_all_maps_change(made: Path, opened: Opener) -> None:
    page = opened(made)
    kinds = ("truth", "prediction", "difference")
    before = {kind: painted(page, kind) for kind in kinds}
    assert gene_field(page).input_value() == "AAA"  # the best
    assert not page.locator("#map-deviation").is_visible()
    pick_gene(page, "bb", "ABB")
    assert unchanged(page, before) == []


def test_zoom_and_pan_are_linked(made: Path, opened: Opener) -> None:
    page = opened(made)
    first = {kind: painted(page, kind) for kind in ("truth", "prediction")}
    whole = ranges(page, "truth")
    point_at(page, "truth", 100, 100)
    page.mouse.wheel(0, -400)
    page.wait_for_function(FIGURE % "it.x_range.end < at", arg=["map_truth", whole[1]])
    assert ranges(page, "truth") == ranges(page, "prediction") == ranges(page, "difference") != whole
    page.mouse.move(5, 5)
    assert unchanged(page, first) == []
    zoomed = ranges(page, "truth")
    page.get_by_role("button", name="→ right").click()
    page.wait_for_function(FIGURE % "it.x_range.start > at", arg=["map_prediction", zoomed[0]])
    page.get_by_role("button", name="whole").click()
    page.wait_for_function(FIGURE % "it.x_range.start == at", arg=["map_difference", whole[0]])
    assert ranges(page, "difference") == whole


def test_a_tooltip_says_what_was_measured_and_predicted(made: Path, opened: Opener, source: MadeSource) -> None:
    page = opened(made)
    pick_gene(page, "cc", "CCC")
    known = source.whole_map
    assert known.truth is not None
    for row in (0, 437, 899):
        x, y = known.centres_um[row]
        point_at(page, "prediction", x, y)
        said = tooltip(page)
        assert said["barcode"] == known.barcodes[row]
        assert float(said["measured"]) == pytest.approx(known.truth[row, 2], rel=1 / 2000, abs=6e-4)
        predicted = known.predictions["MagNet"][row, 2]
        assert float(said["predicted"].replace("−", "-")) == pytest.approx(predicted, rel=1 / 2000, abs=6e-4)
    left, _, _, top = ranges(page, "prediction")
    point_at(page, "prediction", left + 1, top + 1)  # beside the bins
    page.wait_for_timeout(300)
    assert page.locator(".bk-tooltip-row-label").locator("visible=true").count() == 0


def test_the_table_sorts_filters_and_opens_maps(made: Path, opened: Opener) -> None:
    page = opened(made)
    assert genes_listed(page) == list(NAMES)  # by PCC
    page.get_by_role("button", name="gene", exact=True).click()
    assert genes_listed(page) == sorted(NAMES)
    page.get_by_role("button", name="PCC").click()
    page.get_by_role("button", name="PCC").click()
    assert genes_listed(page) == list(NAMES[::-1])
    page.locator("#genes tr", has_text="CCC").locator(".number").first.click()
    page.get_by_role("status").filter(has_text="CCC").wait_for()
    assert gene_field(page).input_value() == "CCC"
    assert page.locator("#genes tr[aria-current=true]").inner_text().startswith("CCC")
    page.get_by_label("Genes whose name has").fill("b")
    page.wait_for_function("() => document.querySelectorAll('#genes tbody tr').length === 1")
    assert genes_listed(page) == ["ABB"]


def test_a_slide_that_was_not_measured_has_its_deviation(made: Path, opened: Opener) -> None:
    page = opened(made)
    page.get_by_label("Slide", exact=True).select_option("B <shown>")
    page.get_by_role("status").filter(has_text="not measured; where this run was tested").wait_for()
    assert "the gene has a PCC of 0.700 on average" in page.get_by_role("status").inner_text()
    shown = [kind for kind in KINDS if page.locator(f"#map-{kind}").is_visible()]
    assert shown == ["prediction", "deviation"]
    page.get_by_label("System", exact=True).select_option("gene mean")
    page.locator("#map-deviation").wait_for(state="hidden")
    page.get_by_label("Slide", exact=True).select_option("A <shown>")
    page.get_by_role("status").filter(has_text="gene mean").wait_for()
    page.locator("#map-truth").wait_for()


def test_the_keyboard_alone_reaches_everything(made: Path, opened: Opener) -> None:
    page = opened(made)
    reached = list[str]()
    for _ in range(45):
        page.keyboard.press("Tab")
        reached.append(page.evaluate(DEEPEST))
    said = " | ".join(reached)
    wanted = ("Look", "Gene (type to search)", "Slide", "System", "Colour scale", "+ zoom in", "whole", "PCC")
    assert [name for name in (*wanted, "outline of the bins", "Genes whose name has") if name not in said] == []
    gene_field(page).focus()
    page.keyboard.press("Control+A")
    page.keyboard.type("cc")
    page.keyboard.press("Enter")
    page.get_by_role("status").filter(has_text="CCC").wait_for()
    whole = ranges(page, "truth")
    page.get_by_role("button", name="+ zoom in").focus()
    page.keyboard.press("Enter")
    page.wait_for_function(FIGURE % "it.x_range.end < at", arg=["map_truth", whole[1]])
    slider = page.get_by_role("slider").first
    slider.focus()
    opaque = slider.get_attribute("aria-valuetext")
    page.keyboard.press("ArrowLeft")
    row = page.locator("#genes tr[aria-current=true] button")
    row.focus()
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Enter")
    page.get_by_role("status").filter(has_text="<i>D&D").wait_for()
    assert slider.get_attribute("aria-valuetext") != opaque


@pytest.mark.parametrize("look", ["light", "dark"])
@pytest.mark.parametrize("width", [400, 1400])
def test_the_page_fits_where_it_is_seen(made: Path, opened: Opener, width: int, look: str) -> None:
    page = opened(made, width=width, look=look)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    boxes = [page.locator(f"#map-{kind}").bounding_box() for kind in ("truth", "prediction", "difference")]
    seen = [box for box in boxes if box is not None]
    across = max(box["x"] + box["width"] for box in seen) - min(box["x"] for box in seen)
    assert across > 0.9 * width
    assert len({box["y"] for box in seen}) == (1 if width == 1400 else 3)
    shade = page.evaluate("getComputedStyle(document.body).backgroundColor.match(/\\d+/g).map(Number)")
    assert (sum(shade) < 3 * 128) == (look == "dark")
    page.get_by_label("Look").select_option("light" if look == "dark" else "dark")
    other = page.evaluate("getComputedStyle(document.body).backgroundColor.match(/\\d+/g).map(Number)")
    assert (sum(other) < 3 * 128) != (look == "dark")


def test_genes_beside_the_page_are_read_from_their_folder(
    source: MadeSource, tmp_path: Path, opened: Opener, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a page.html"
    monkeypatch.setattr(build, "WORDS_BYTES", 0)
    made_page(path, source)
    page = opened(path)
    pick_gene(page, "bb", "ABB")
    (tmp_path / "alone").mkdir()
    page = opened(Path(shutil.copy(path, tmp_path / "alone")), quiet=False)
    page.get_by_role("alert").filter(has_text="AAA is not in this page").wait_for()


def test_a_table_of_results_is_shown_as_it_was_computed(mapped: Path, tmp_path: Path, opened: Opener) -> None:
    page = opened(write_report([mapped], tmp_path / "report.html"))
    source = next(each for each in find_slide_maps(mapped) if each.group == "8 µm")
    slide = source.read()
    page.get_by_label("Slide", exact=True).select_option(f"{slide.slide_id}, 8 µm")
    page.get_by_role("status").filter(has_text="8 µm").wait_for()
    gene = str(slide.genes.names[3])
    pick_gene(page, gene, gene)
    page.get_by_label("System", exact=True).select_option("colour ridge")
    page.get_by_role("status").filter(has_text="colour ridge").wait_for()
    facts = page.evaluate("JSON.parse(document.getElementById('maps').textContent)")
    shown = next(each for each in facts if each["title"] == f"{slide.slide_id}, 8 µm")
    cells = np.stack(
        [(slide.centres_um[5] - 0) @ [np.cos(shown["picture"][4]), np.sin(shown["picture"][4])],
         (slide.centres_um[5] - 0) @ [-np.sin(shown["picture"][4]), np.cos(shown["picture"][4])]]
    )  # fmt: skip
    point_at(page, "truth", *cells)
    said = tooltip(page)
    assert slide.truth is not None
    assert said["barcode"] == slide.barcodes[5]
    assert float(said["measured"]) == pytest.approx(slide.truth[5, 3], rel=1 / 2000, abs=6e-4)
    predicted = slide.predictions["colour ridge"][5, 3]
    assert float(said["predicted"].replace("−", "-")) == pytest.approx(predicted, rel=1 / 2000, abs=6e-4)

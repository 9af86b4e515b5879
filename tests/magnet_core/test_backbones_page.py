"""docs/backbones.md says of every backbone what the code's table says, cell by cell, with the same source."""

import math
import re
from pathlib import Path

import pytest

from magnet_core.backbones import BACKBONES, BackboneSpec
from magnet_core.backbones.cards import CARDS, NOT_STATED, POOLED, card_of, cells
from tests.magnet_core.test_backbones_table import PUBLISHED_MILLIONS

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "backbones.md").read_text(encoding="utf-8")
ADDRESS = re.compile(r"https://[\w.-]+\.[a-z]+/[\w./#-]+")
LINE = re.compile(r"- \*\*(.+?)\*\*: (.+?)\.(?: \[source\]\((\S+)\))?")


def table_of_the_page() -> list[list[str]]:
    lines = PAGE.split("| name | parameters |")[1].split("\n\n")[0].splitlines()[2:]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def row_of(spec: BackboneSpec) -> list[str]:
    millions = PUBLISHED_MILLIONS[spec.name]
    tokens = "–"
    if spec.patch_tokens and spec.input_px:
        tokens = f"{spec.input_px // math.isqrt(spec.patch_tokens)} px, {spec.prefix_tokens - 1}"
    return [
        f"`{spec.name}`",
        f"{millions / 1000:.1f} G" if millions >= 1000 else f"{millions:.0f} M",
        tokens,
        POOLED[spec.pooling],
        str(spec.width),
        card_of(spec).resolution.text,
        spec.licence,
        card_of(spec).gate.text,
    ]


def test_the_pages_table_has_every_backbone_and_every_cell() -> None:
    assert table_of_the_page() == [row_of(spec) for spec in BACKBONES.values()]


def stated_on_the_page(name: str) -> dict[str, tuple[str, str]]:
    """What stands under the name of one backbone: text and source by title, line breaks apart."""
    section = re.split(r"\n#", PAGE.split(f"\n### `{name}`\n")[1])[0]
    items = [" ".join(item.split()) for item in re.split(r"\n(?=- )", section.strip())]
    found = [LINE.fullmatch(item) for item in items]
    assert None not in found, items
    return {match[1]: (match[2], match[3] or "") for match in found if match}


@pytest.mark.parametrize("name", BACKBONES)
def test_the_page_states_of_each_what_its_card_states_with_the_same_source(name: str) -> None:
    expected = {title: (cell.text, cell.source) for title, cell in cells(BACKBONES[name]).items()}
    assert stated_on_the_page(name) == expected


def test_the_page_has_no_card_that_the_code_lacks() -> None:
    assert re.findall(r"^### `(.+)`$", PAGE, re.MULTILINE) == list(BACKBONES) == list(CARDS)


OF_THE_CODE = {"Input", "Mean and sd", "Pooled feature"}  # a model that no page describes so is used so all the same


@pytest.mark.parametrize("name", BACKBONES)
def test_every_cell_has_a_source_or_says_that_nothing_is_stated(name: str) -> None:
    for title, cell in cells(BACKBONES[name]).items():
        general = name in {"resnet18", "resnet50"} and title in OF_THE_CODE
        if cell == NOT_STATED or general:
            assert cell.source == ""
        else:
            assert ADDRESS.fullmatch(cell.source), (title, cell)
        assert "not stated" not in cell.text or cell == NOT_STATED or cell.source

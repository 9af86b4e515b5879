import pytest
from typer.testing import CliRunner

from extract.backbones_table import render_backbone, render_backbones
from extract.cli import app
from magnet_core.backbones import BACKBONES, BackboneSpec
from magnet_core.backbones.cards import CARDS, cells
from magnet_core.errors import MagnetError


def test_the_command_prints_every_backbone_in_aligned_columns() -> None:
    result = CliRunner().invoke(app, ["backbones"])
    assert result.exit_code == 0
    headings, *rows = result.stdout.split("\n\n")[0].splitlines()
    assert [row.split()[0] for row in rows] == list(BACKBONES)
    for row, spec in zip(rows, BACKBONES.values(), strict=True):
        card = CARDS[spec.name]
        for heading, cell in (
            ("trained at", card.resolution.text),
            ("licence", spec.licence),
            ("gate", card.gate.text),
            ("page", spec.page),
        ):
            assert row[headings.index(heading) :].startswith(cell)
        assert row[: headings.index("width") + len("width")].endswith(f" {spec.width}")
    assert max(map(len, [headings, *rows])) <= 180


def test_what_nobody_states_is_said_to_be_so() -> None:
    row = render_backbones([BackboneSpec("timm:x", architecture="x")]).splitlines()[1]
    assert row.split("  ")[0] == "timm:x"
    assert [cell.strip() for cell in row.split("  ") if cell][1:] == [
        "not stated", "as cut", "feature map", "model", "see the model's page", "not stated", "the model's own page",
    ]  # fmt: skip
    card = render_backbone(BackboneSpec("timm:x", architecture="x")).splitlines()
    assert sum(line.endswith("  not stated") for line in card) == 5


@pytest.mark.parametrize("name", BACKBONES)
def test_one_backbone_is_shown_whole_with_every_source(name: str) -> None:
    result = CliRunner().invoke(app, ["backbones", name])
    assert result.exit_code == 0
    first, *lines = result.stdout.splitlines()
    assert first == name
    column = lines[0].index(BACKBONES[name].page)
    for title, cell in cells(BACKBONES[name]).items():
        at = lines.index(f"{title:{column}}{cell.text}")
        if cell.source:
            assert lines[at + 1].strip() == cell.source


def test_an_unknown_name_lists_the_near_ones() -> None:
    result = CliRunner().invoke(app, ["backbones", "midnight"])
    assert isinstance(result.exception, MagnetError)
    assert "did you mean midnight-12k" in str(result.exception)

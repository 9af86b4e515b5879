from typer.testing import CliRunner

from extract.backbones_table import render_backbones
from extract.cli import app
from magnet_core.backbones import BACKBONES, BackboneSpec


def test_the_command_prints_every_backbone_in_aligned_columns() -> None:
    result = CliRunner().invoke(app, ["backbones"])
    assert result.exit_code == 0
    headings, *rows = result.stdout.split("\n\n")[0].splitlines()
    assert [row.split()[0] for row in rows] == list(BACKBONES)
    for row, spec in zip(rows, BACKBONES.values(), strict=True):
        for heading, cell in (("architecture", spec.architecture), ("licence", spec.licence), ("page", spec.page)):
            assert row[headings.index(heading) :].startswith(cell)
        assert row[: headings.index("width") + len("width")].endswith(f" {spec.width}")
        assert row[headings.index("gated") :].startswith("yes" if spec.gated else "no")


def test_what_only_the_built_model_tells_is_left_open() -> None:
    row = render_backbones([BackboneSpec("timm:x", architecture="x")]).splitlines()[1]
    assert row.split() == ["timm:x", "x", "as", "cut", "feature", "map", "model", "see", "the", "model's", "page"] + [
        "no", "the", "model's", "own", "page",
    ]  # fmt: skip

"""Settings of stage one: where each comes from, what it may be, and that help, recipe and fixed tables agree."""

import tomllib
import typing
from pathlib import Path

import pytest
from typer.testing import CliRunner

from extract.cli import app
from extract.config import EmbeddingConfig, GeometryConfig, RunConfig, load_run
from magnet_core.device import PRECISIONS
from magnet_core.errors import MagnetError
from magnet_core.levels import TARGETS
from magnet_core.symmetry import NUM_SYMMETRIES

ROOT = Path(__file__).resolve().parents[2]


def write(folder: Path, text: str) -> Path:
    recipe = folder / "extract.toml"
    recipe.write_text(text)
    return recipe


def test_defaults_recipe_options_and_set_each_win_over_the_one_before(tmp_path: Path) -> None:
    recipe = write(
        tmp_path, "workers = 3\n[geometry]\nbins = 70\nspots = 7\nwindow = 6\n[embedding]\nbackbone = 'uni'\n"
    )
    options = {"geometry.spots": ("--spots", 8), "geometry.window": ("--window", 7), "device": ("--device", None)}
    config = load_run(recipe, options, ["geometry.window=9"])
    assert (config.workers, config.embedding.backbone, config.device) == (3, "uni", "auto")
    assert (config.geometry.bins, config.geometry.spots, config.geometry.window) == (70, 8, 9)
    assert config.geometry.neighbours == GeometryConfig().neighbours


@pytest.mark.parametrize(
    ("recipe", "options", "assignments", "said"),
    [
        (
            "[geometry]\nbinz = 3",
            {},
            [],
            r"extract.toml: geometry: expected a known setting, found 'binz'; did you mean b",
        ),
        ("[embedding]\ntoken_grid = 99", {}, [], r"extract.toml: embedding.token_grid: expected 1 to 16, found 99"),
        ("", {"embedding.token_grid": ("--tokens", 99)}, [], r"--tokens: embedding.token_grid: expected 1 to 16"),
        (
            "[geometry]\nbins = 5",
            {"geometry.bins": ("--bins", 0)},
            [],
            r"geometry.bins: expected 1 to 100,000,000",
        ),
        (
            "",
            {"geometry.targets": ("--targets", [8, "x"])},
            [],
            r"--targets: geometry.targets: expected some of 8, 16, 55",
        ),
        (
            "[embedding]\nbackbone = 'uni@'",
            {},
            [],
            r"uni@: expected a branch, a tag or a commit after '@', found ''; copy",
        ),
        ("", {"embedding.backbone": ("--backbone", "un@v1")}, [], r"--backbone: .* found 'un'; did you mean uni"),
        ("", {}, ["embedding.weights=~nouser/a.pt"], r"embedding.weights: expected a path, found '~nouser', which has"),
        ("", {}, ["embedding.weights_sha256=AB"], r"weights_sha256: expected 64 hexadecimal digits.*, found 'AB'"),
        (
            "",
            {"embedding.weights_sha256": ("--weights-sha256", "0" * 64)},
            ["embedding.weights=random"],
            r"--weights-sha256: embedding.weights_sha256: expected weights from a file or the hub, found random ones",
        ),
        ("", {}, ["device=gpu"], r"--set: device: expected auto, cpu, cuda or cuda:N, found 'gpu'"),
        ("", {}, ["geometry.bin_patch_um=nan"], r"--set: geometry.bin_patch_um: expected a positive number"),
    ],
)
def test_a_wrong_setting_names_its_source(
    tmp_path: Path, recipe: str, options: dict[str, tuple[str, object]], assignments: list[str], said: str
) -> None:
    with pytest.raises(MagnetError, match=said):
        load_run(write(tmp_path, recipe), options, assignments)


def test_the_recipe_with_the_papers_numbers_holds_every_setting_at_its_default() -> None:
    written = tomllib.loads((ROOT / "recipes" / "extract.toml").read_text(encoding="utf-8"))
    assert RunConfig.build(written, where="recipe") == RunConfig()
    for table, kind in (("geometry", GeometryConfig), ("embedding", EmbeddingConfig)):
        assert written[table].keys() == kind.model_fields.keys()


def test_what_a_setting_may_be_is_what_the_code_knows() -> None:
    assert all(GeometryConfig.build({"targets": [um]}, where="test").targets == (um,) for um in TARGETS)
    assert GeometryConfig(targets=(55, 8)).targets == (8, 55)
    kinds = {name: field.annotation for name, field in EmbeddingConfig.model_fields.items()}
    assert set(typing.get_args(kinds["precision"])) == PRECISIONS.keys()
    assert typing.get_args(kinds["views"]) == (1, NUM_SYMMETRIES)


def test_help_shows_the_defaults_of_options_that_a_recipe_can_speak_for() -> None:
    shown = CliRunner().invoke(app, ["run", "--help"], env={"COLUMNS": "200"}).stdout
    for default in ("samples.csv", "resnet50", "8,16,55", "6000", "2500", "windows"):
        assert f"[default: {default}]" in shown
    assert "24 × 24 bins" in shown


def test_options_of_the_command_reach_the_settings_over_a_recipe(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    configs: list[RunConfig] = []

    def keep(config: RunConfig, *_: object) -> None:
        configs.append(config)
        raise MagnetError("test", expected="nothing", found="this", remedy="none")

    monkeypatch.setattr("extract.preflight.accept", keep)
    recipe = write(tmp_path, "batch_size = 5\ncompile = true\n[geometry]\nbins = 70\n")
    given = ["--tokens", "1", "--targets", "55, 8", "--seed", "4", "--slide", "S1", "--slide", "S2", "--no-compile"]
    command = ["run", "--dry-run", "--recipe", str(recipe), *given, "--set", "embedding.seed=5"]
    assert isinstance(CliRunner().invoke(app, command).exception, MagnetError)
    (config,) = configs
    assert (config.batch_size, config.geometry.bins, config.compile, config.slides) == (5, 70, False, ("S1", "S2"))
    assert (config.embedding.token_grid, config.geometry.targets) == (1, (8, 55))
    assert (config.geometry.seed, config.embedding.seed) == (4, 5)

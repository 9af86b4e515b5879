import json
from pathlib import Path

import pytest

from magnet_core.errors import MagnetError
from train.settings.fit import FitConfig, load_config
from train.studies.settings import load_study_config


def test_the_defaults_are_the_papers() -> None:
    config = load_config(None)
    assert (config.optim.name, config.optim.lr, config.optim.momentum) == ("sgd", 1e-4, 0.9)
    assert (config.optim.weight_decay, config.optim.final_lr, config.optim.batch_size) == (1e-4, 0.01, 256)
    assert (config.loss.lambda_fine, config.loss.lambda_context, config.loss.lambda_consistency) == (0.8, 0.25, 0.1)
    assert (config.loss.gamma_prediction, config.loss.gamma_consistency, config.data.panel) == (1.0, 0.25, 250)


def test_settings_win_over_the_recipe_and_the_recipe_over_the_defaults(tmp_path: Path) -> None:
    (tmp_path / "recipe.toml").write_text('seed = 7\n[optim]\nname = "adamw"\nlr = 1e-3\n')
    config = load_config(tmp_path / "recipe.toml", ["optim.lr=5e-4", "data.target=55", "data.backbone=timm:resnet18"])
    assert (config.seed, config.optim.name, config.optim.lr) == (7, "adamw", 5e-4)
    assert (config.data.target, config.data.backbone) == (55, "timm:resnet18")


@pytest.mark.parametrize(
    ("setting", "says"),
    [
        ("optim.learning=1", "--set: optim: expected a known setting, found 'learning'"),
        ("optm.lr=1", "found 'optm'; did you mean optim"),
        ("optim.lr=fast", "--set: optim.lr: expected a number, found 'fast'"),
        ("optim.name=adam", "expected one of sgd, adamw, found 'adam'"),
        ("optim.lr", "expected key=value"),
        ("optim.epochs=0", "optim.epochs: expected 1 to 1,000,000, found 0"),
        ("optim.momentum=-3", "optim.momentum: expected 0 to 1, found -3"),
        ("optim.clip_norm=-1", "optim.clip_norm: expected 0 or more, found -1"),
        ("optim=sgd", "expected settings of 'optim', found optim=sgd; set optim.name, optim.lr"),
        ("augment=perhaps", "augment: expected true or false, found 'perhaps'"),
        ("data.include=SGPP1", "include: expected a list, such as"),
        ("seed.a=1", "seed: expected a whole number"),
        ("data.target=9", "--set: data.target: expected 8, 16 or 55 .µm., found 9; choose one of them"),
        ("name=../x", "--name: expected a folder below --runs, found '../x'"),
        ("model.heads=3", "--set: model.width: expected a multiple of heads=3, found 256"),
    ],
)
def test_a_wrong_setting_is_one_line(setting: str, says: str) -> None:
    with pytest.raises(MagnetError, match=says):
        load_config(None, [setting])


def test_an_error_names_the_recipe_or_the_option_that_said_it(tmp_path: Path) -> None:
    recipe = tmp_path / "recipe.toml"
    recipe.write_text("[optim]\nlr = 0\nepochs = 0\n[rivals.egn]\nheads = 3\n")
    options = {"optim.lr": ("--lr", 1e-3), "data.target": ("--target", 55), "optim.epochs": ("--epochs", None)}
    with pytest.raises(MagnetError, match=f"^{recipe}: optim.epochs: expected 1 to 1,000,000, found 0; "):
        load_config(recipe, options=options)
    with pytest.raises(MagnetError, match="^--target: data.target: expected 8, 16 or 55 .*, found 9; "):
        load_config(recipe, ["optim.epochs=3"], options=options | {"data.target": ("--target", 9)})
    config = load_config(recipe, ["optim.epochs=3"], options=options)
    assert (config.optim.lr, config.optim.epochs, config.data.target) == (1e-3, 3, 55)
    with pytest.raises(MagnetError, match=f"^{recipe}: rivals.egn.width: expected a multiple of heads=3, found 1024; "):
        load_study_config(recipe, ["optim.epochs=3"], options=options)
    with pytest.raises(MagnetError, match="^--set: rivals: expected a table 'rivals', found rivals=3; "):
        load_study_config(None, ["rivals=3"])


def test_a_broken_or_absent_recipe_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "broken.toml").write_text("optim = [")
    with pytest.raises(MagnetError, match="broken.toml: expected TOML"):
        load_config(tmp_path / "broken.toml")
    with pytest.raises(MagnetError, match="--recipe: expected a TOML file, found no file"):
        load_config(tmp_path / "absent.toml")


def test_a_configuration_survives_json() -> None:
    config = load_config(None, ["optim.lr=5e-4", "model.rounds=3", "loss.pcc_over=bins"])
    assert FitConfig.build(json.loads(json.dumps(config.plain())), where="run.json") == config

from pathlib import Path

import optuna
import pytest

from magnet_core.errors import MagnetError
from train.settings.fit import load_config
from train.sweep.config import Sweep, read_sweep
from train.sweep.space import Choice, Range, parse_space

RECIPES = Path(__file__).resolve().parents[3] / "recipes"


def read(tmp_path: Path, text: str, *settings: str) -> Sweep:
    (tmp_path / "sweep.toml").write_text(text)
    return read_sweep(tmp_path / "sweep.toml", {}, settings)


def test_dotted_keys_and_nested_tables_are_one_space(tmp_path: Path) -> None:
    dotted = read(
        tmp_path, '[space]\n"optim.lr" = {low = 1e-4, high = 1, log = true}\nmodel.rounds = {low = 1, high = 3}'
    )
    tables = read(
        tmp_path, "[space.optim]\nlr = {low = 1e-4, high = 1, log = true}\n[space.model.rounds]\nlow=1\nhigh=3"
    )
    expected = {"optim.lr": Range(1e-4, 1, log=True), "model.rounds": Range(1, 3, whole=True)}
    assert dotted.space == tables.space == expected


def test_values_are_drawn_of_the_settings_kind_and_within_their_limits() -> None:
    space = parse_space(
        {
            "optim.batch_size": {"low": 64, "high": 256, "step": 64},
            "optim.lr": {"low": 1, "high": 2},
            "model.dropout": {"low": 0.0, "high": 0.3, "step": 0.1},
            "optim.name": {"choices": ["sgd", "adamw"]},
            "model.use_gat": {"choices": [True, False]},
        },
        where="space",
    )
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    drawn = [
        {name: item.suggest(trial, name) for name, item in space.items()} for trial in (study.ask() for _ in range(40))
    ]
    assert {values["optim.batch_size"] for values in drawn} == {64, 128, 192, 256}
    assert all(isinstance(values["optim.lr"], float) and 1 <= values["optim.lr"] <= 2 for values in drawn)
    assert len({round(float(values["model.dropout"]), 6) for values in drawn}) == 4
    assert {values["optim.name"] for values in drawn} == {"sgd", "adamw"}
    assert {values["model.use_gat"] for values in drawn} == {True, False}
    assert space["optim.name"] == Choice(("sgd", "adamw"))


def test_layers_lie_over_one_another(tmp_path: Path) -> None:
    (tmp_path / "base.toml").write_text("seed = 7\n[optim]\nlr = 0.5\nmomentum = 0.3\n[encoder]\nmode = 'full'\n")
    fixed = "'optim.epochs' = 3\noptim.warmup = 0.1"
    text = f"recipe = 'base.toml'\n[settings]\n{fixed}\n[space]\nmodel.rounds = {{low = 1, high = 3}}"
    sweep = read(tmp_path, text, "optim.warmup=0.2", "optim.name=adamw")
    config = sweep.config({"model.rounds": 3})
    assert (config.seed, config.optim.lr, config.optim.momentum, config.optim.epochs) == (7, 0.5, 0.3, 3)
    assert (config.optim.warmup, config.optim.name, config.model.rounds) == (0.2, "adamw", 3)
    assert config.encoder.mode == "frozen"
    assert config.run_name == "sweep"


def test_the_recipe_for_newcomers_is_a_sweep_over_quick() -> None:
    sweep = read_sweep(RECIPES / "sweep.toml")
    assert sweep.base.optim.name == load_config(RECIPES / "quick.toml").optim.name == "adamw"
    assert "optim.lr" in sweep.space


def test_a_value_that_fits_in_some_combination_is_taken(tmp_path: Path) -> None:
    sweep = read(tmp_path, "[space]\nmodel.width = {choices = [60, 64]}\nmodel.heads = {choices = [3, 4, 8]}")
    assert sweep.config({"model.width": 60, "model.heads": 3}).model.width == 60
    with pytest.raises(MagnetError, match="expected a multiple of heads=3, found 64"):
        sweep.config({"model.width": 64, "model.heads": 3})


@pytest.mark.parametrize(
    ("space", "says"),
    [
        ("optm.lr = {low = 1, high = 2}", "expected a known setting, found 'optm'; did you mean optim"),
        ("optim.lrr = {low = 1, high = 2}", "found 'optim.lrr'; did you mean lr"),
        ("optim.lr = 3", "optim.lr: expected {low, high} or {choices}, found 3"),
        ("optim.lr = {low = 1}", "optim.lr: expected low and high, found no high"),
        ("optim.lr = {low = 2, high = 1}", "expected low below high, both finite, found low=2, high=1"),
        ("optim.lr = {low = 'a', high = 1}", "optim.lr: low: expected a number, found 'a'"),
        ("optim.lr = {low = 0.0, high = 1, log = true}", "with log, low above 0"),
        ("optim.lr = {low = 0.1, high = 1, log = 1}", "log: expected true or false, found 1"),
        ("optim.lr = {low = 0.1, high = 1, lg = true}", "expected a known key, found 'lg'; did you mean log"),
        ("model.dropout = {low = 0.0, high = 0.35, step = 0.1}", "expected whole steps from low to high"),
        ("optim.lr = {low = 1e-300, high = 1e300, step = 1e-290}", "expected whole steps from low to high, 1000000 at"),
        ("optim.lr = {low = 1.0, high = 2.0, step = nan}", "expected whole steps from low to high"),
        ("optim.lr = {low = 1.0, high = 2.0, step = 0.0}", "expected whole steps from low to high"),
        ("optim.lr = {choices = [0.1, inf]}", "optim.lr: expected a finite number, found inf"),
        ("model.rounds = {low = 1, high = 2.5}", "model.rounds: high: expected a whole number, found 2.5"),
        ("optim.name = {low = 1, high = 2}", r"optim.name: expected {choices = \[...\]}"),
        ("optim.name = {choices = []}", "expected one choice or more"),
        ("optim.name = {choices = ['sgd', 'adam']}", "expected one of sgd, adamw, found 'adam'"),
        ("model.rounds = {low = 0, high = 2}", "model.rounds: expected 1 to 256, found 0"),
        ("optim.momentum = {low = 0.5, high = 2.0}", "optim.momentum: expected 0 to 1, found 2.0"),
        ("data.panel = {choices = [10, 20]}", "found 'data.panel'; put it into"),
        ("data.normalise.log = {choices = [true, false]}", "found 'data.normalise'; put it into"),
        ("seed = {low = 0, high = 9}", "found 'seed'; put it into"),
        ("", "expected settings to search, found none"),
    ],
)
def test_a_wrong_space_is_one_line(tmp_path: Path, space: str, says: str) -> None:
    with pytest.raises(MagnetError, match=says):
        read(tmp_path, f"[space]\n{space}")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[spaces]", "expected a known table, found 'spaces'; did you mean space"),
        ("[search]\nsampler = 'cma'\n[space]\nhalo = {low = 0, high = 1}", "expected one of tpe, random, found 'cma'"),
        (
            "[search]\nstartup = 0\n[space]\nhalo = {low = 0, high = 1}",
            "startup: expected 1 to 1,000,000, found 0",
        ),
        ("[settings]\noptim.l = 1\n[space]\nhalo = {low = 0, high = 1}", "optim: expected a known setting, found 'l'"),
        ("[settings]\nhalo = 1\n[space]\nhalo = {low = 0, high = 1}", "expected 'halo' fixed or searched, found both"),
        (
            "recipe = 'gone.toml'\n[space]\nhalo = {low = 0, high = 1}",
            "expected a TOML file, found no file .*gone.toml",
        ),
        ("[space]\nhalo = {low = 0, high = 9}", "halo: expected 0 to 8, found 9"),
        ("[space", "sweep.toml: expected TOML"),
        ("space = 3", "expected a table 'space'"),
    ],
)
def test_a_wrong_sweep_file_is_one_line(tmp_path: Path, text: str, says: str) -> None:
    with pytest.raises(MagnetError, match=says):
        read(tmp_path, text)


def test_the_mode_of_the_encoder_is_said_once(tmp_path: Path) -> None:
    (tmp_path / "sweep.toml").write_text("[space]\nencoder.mode = {choices = ['last', 'lora']}")
    assert read_sweep(tmp_path / "sweep.toml").config({"encoder.mode": "lora"}).encoder.mode == "lora"
    with pytest.raises(MagnetError, match="--bins: expected --bins or encoder.mode, found both"):
        read_sweep(tmp_path / "sweep.toml", {"encoder.mode": ("--bins", "full")})

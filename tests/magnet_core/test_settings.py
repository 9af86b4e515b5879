import subprocess
import sys
from pathlib import Path
from typing import Any, ClassVar, Literal, Self, get_args

import pytest
from pydantic import Field, field_validator, model_validator

from magnet_core.errors import MagnetError
from magnet_core.settings import Layers, Settings, differing, flat, holds, merged, nested, refusal, without
from magnet_core.settings.loss import Likelihood, LossConfig, Over
from magnet_core.settings.model import ModelConfig
from magnet_core.settings.normalise import NormaliseConfig
from magnet_core.settings.tuning import TuningConfig


class Oven(Settings):
    table: ClassVar[str] = "oven"

    degrees: float = Field(default=180.0, gt=0, le=300)
    share: float = Field(default=0.5, ge=0, lt=1)
    excess: float = Field(default=2.0, gt=1)
    shelves: int = Field(default=2, ge=1)
    most: int = Field(default=2, le=4)
    weight: float = Field(default=1.0, ge=0, allow_inf_nan=False)
    heat: Literal["top", "fan"] = "fan"
    lit: bool = False


class Bread(Settings):
    name: str = "rye"
    grams: int = 500
    pieces: int = 2
    seeds: tuple[str, ...] = ()
    tin: Path = Path("tin")
    oven: Oven = Oven()

    @field_validator("name")
    @classmethod
    def _has_a_name(cls, name: str) -> str:
        if not name:
            raise refusal(expected="a name", found=repr(name), remedy="give one")
        return name

    @model_validator(mode="after")
    def _pieces_share_the_dough(self) -> Self:
        if self.grams % self.pieces:
            raise refusal("grams", "pieces", expected=f"a multiple of pieces={self.pieces}", found=self.grams)
        return self


def refused(build: Any, *arguments: Any, **options: Any) -> str:
    with pytest.raises(MagnetError) as told:
        build(*arguments, **options)
    return str(told.value)


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"degrees": 0.0}, "oven.degrees: expected a positive number, at most 300, found 0.0; change the setting"),
        ({"share": 1.0}, "oven.share: expected 0 or more, below 1, found 1.0; change the setting"),
        ({"share": float("nan")}, "oven.share: expected 0 or more, below 1, found nan; change the setting"),
        ({"excess": 1.0}, "oven.excess: expected more than 1, found 1.0; change the setting"),
        ({"shelves": 0}, "oven.shelves: expected 1 or more, found 0; change the setting"),
        ({"shelves": 1.5}, "oven.shelves: expected a whole number, found 1.5; change the setting"),
        ({"most": 5}, "oven.most: expected at most 4, found 5; change the setting"),
        ({"weight": float("inf")}, "oven.weight: expected a finite number, found inf; change the setting"),
        (
            {"degrees": float("inf")},
            "oven.degrees: expected a positive number, at most 300, found inf; change the setting",
        ),
        ({"excess": float("inf")}, "oven.excess: expected a finite number, found inf; change the setting"),
        ({"heat": "grill"}, "oven.heat: expected one of top, fan, found 'grill'; change the setting"),
        ({"lit": "perhaps"}, "oven.lit: expected true or false, found 'perhaps'; change the setting"),
        ({"degree": 1}, "oven: expected a known setting, found 'degree'; did you mean degrees?"),
    ],
)
def test_a_fault_is_one_line_by_the_name_a_user_sets(values: dict[str, Any], says: str) -> None:
    assert refused(Oven, **values) == says
    assert refused(Oven().changed, **values) == says
    assert refused(Bread.build, {"oven": values}, where="a.toml") == f"a.toml: {says}"


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"grm": 1}, "a.toml: expected a known setting, found 'grm'; did you mean grams?"),
        ({"grams": 501}, "a.toml: grams: expected a multiple of pieces=2, found 501; change one of them"),
        ({"name": "a\0b"}, r"a.toml: name: expected text of Unicode without NUL, found 'a\x00b'; change the setting"),
        ({"tin": Path("t\udcff")}, r"a.toml: tin: expected text of Unicode without NUL, found 't\udcff'; change the"),
        ({"seeds": ["a", "\0"]}, r"a.toml: seeds: expected text of Unicode without NUL, found '\x00'; change the"),
        ({"name": ""}, "a.toml: name: expected a name, found ''; give one"),
        (
            {"seeds": "one"},
            """a.toml: seeds: expected a list, such as ["one", "two"], found 'one'; change the setting""",
        ),
        ({"oven": {"shelves": {"a": 1}}}, "a.toml: oven.shelves: expected a whole number, found {'a': 1}; change the"),
        ({"oven": 3}, "a.toml: oven: expected settings of 'oven', found oven=3; set oven.degrees, oven.share, "),
    ],
)
def test_a_fault_of_a_whole_recipe_names_its_file(values: dict[str, Any], says: str) -> None:
    assert refused(Bread.build, values, where="a.toml").startswith(says)


def test_settings_are_frozen_equal_by_value_and_go_through_plain_values() -> None:
    bread = Bread(grams=400, seeds=("poppy",), oven=Oven(lit=True))
    assert Bread.build(bread.plain(), where="") == bread
    assert hash(Bread.build(bread.plain(), where="")) == hash(bread) != hash(Bread())
    assert bread.plain()["seeds"] == ["poppy"]
    assert bread.plain()["tin"] == "tin"
    with pytest.raises(ValueError, match="frozen"):
        bread.grams = 3


def test_a_changed_copy_keeps_the_rest_and_changes_single_settings_of_a_table() -> None:
    bread = Bread(grams=400, oven=Oven(lit=True))
    changed = bread.changed(pieces=4, oven={"shelves": 1})
    assert changed == Bread(grams=400, pieces=4, oven=Oven(lit=True, shelves=1))
    assert bread.changed(oven=Oven()).oven == Oven()
    assert bread.oven.shelves == 2
    assert refused(bread.changed, pieces=3) == "grams: expected a multiple of pieces=3, found 400; change one of them"


def test_layers_lie_over_one_another_and_say_who_said_what(tmp_path: Path) -> None:
    (tmp_path / "rye.toml").write_text("grams = 600\npieces = 3\n[oven]\nshelves = 1\nlit = true\n")
    layers = Layers().add({"pieces": 2, "oven": {"heat": "top", "shelves": 4}}, source="habit")
    layers.add_given(
        tmp_path / "rye.toml", {"tin": ("--tin", tmp_path), "grams": ("--grams", None)}, ["oven.lit=false"]
    )
    assert Bread.build(layers.values, where=layers.source) == Bread(
        grams=600, pieces=3, tin=tmp_path, oven=Oven(heat="top", shelves=1, lit=False)
    )
    names = ("pieces", "oven.heat", "oven.shelves", "oven.lit", "tin", "oven", "name")
    recipe = str(tmp_path / "rye.toml")
    assert [layers.source(name) for name in names] == [recipe, "habit", recipe, "--set", "--tin", "--set", ""]
    assert layers.table("oven") == {"heat": "top", "shelves": 1, "lit": False}
    assert layers.table("flour") == {}


@pytest.mark.parametrize(
    ("options", "assignments", "says"),
    [
        ({}, ["oven.shelves=0"], "--set: oven.shelves: expected 1 or more, found 0; change the setting"),
        ({"oven.shelves": ("--shelves", 0)}, [], "--shelves: oven.shelves: expected 1 or more, found 0; change the"),
        ({}, ["oven.shelvs=2"], "--set: oven: expected a known setting, found 'shelvs'; did you mean shelves"),
        ({}, ["ovn.shelves=2"], "--set: expected a known setting, found 'ovn'; did you mean oven?"),
        ({}, ["pieces=7"], "--set: grams: expected a multiple of pieces=7, found 500; change one of them"),
        ({}, ["grams"], "--set: expected key=value, such as optim.lr=1e-3, found 'grams'; add '='"),
        ({"grams": ("--grams", 501)}, ["lit=1"], "--set: expected a known setting, found 'lit'; "),
        ({"oven": ("--oven", 3)}, ["oven.lit=true"], "--oven: expected a table 'oven', as --set has settings of it, "),
    ],
)
def test_an_error_names_the_source_of_the_setting(
    options: dict[str, tuple[str, Any]], assignments: list[str], says: str
) -> None:
    def build() -> Bread:
        layers = Layers().add({"oven": {"heat": "top"}} if "oven" not in options else {}, source="habit")
        layers.add_given(None, options, assignments)
        return Bread.build(layers.values, where=layers.source)

    assert refused(build).startswith(says)


def test_a_single_value_where_a_table_is_needed_is_an_error() -> None:
    layers = Layers().add({"rivals": 3}, source="a.toml")
    assert refused(layers.table, "rivals") == (
        "a.toml: rivals: expected a table 'rivals', found rivals=3; write [rivals]"
    )


def test_layers_over_others_leave_those_as_they_are() -> None:
    below = Layers().add({"grams": 400}, source="habit")
    above = below.over({"grams": 600}, source="trial")
    assert (below.values, below.source("grams")) == ({"grams": 400}, "habit")
    assert (above.values, above.source("grams")) == ({"grams": 600}, "trial")


def test_nested_tables_and_dotted_names_are_the_same_settings() -> None:
    tables = {"a": 1, "b": {"c": {"d": [2]}, "e": {}}}
    assert flat(tables) == {"a": 1, "b.c.d": [2], "b.e": {}}
    assert nested(flat(tables), where="") == nested({"a": 1, "b": {"c.d": [2], "e": {}}}, where="") == tables
    assert merged(tables, {"a": {"x": 1}, "b": {"c": {"f": 3}}}) == {
        "a": {"x": 1},
        "b": {"c": {"d": [2], "f": 3}, "e": {}},
    }
    assert without(tables, {"a", "b.c.d", "e"}) == {"b": {"c": {}, "e": {}}}
    assert [name for name in ("a", "b", "b.c", "b.c.d", "c", "b.x", "a.x") if holds(tables, name)] == [
        "a",
        "b",
        "b.c",
        "b.c.d",
    ]
    assert refused(nested, {"a.b": 1, "a": {"b": 2}}, where="file") == (
        "file: expected 'b' once, found it twice; leave one of them out"
    )


def test_settings_differ_by_their_dotted_names() -> None:
    one, other = {"a": {"b": 1, "c": 2}, "d": 3, "f": None}, {"a": {"b": 1, "c": 4}, "d": 5, "e": 6}
    assert differing(one, other) == ["a.c", "d", "e", "f"]
    assert differing(one, other, neutral={"a.c", "f"}) == ["d", "e"]
    assert differing(one, one) == []


def test_the_names_of_the_settings_are_those_of_the_code() -> None:
    from magnet_core.backbones.tuning import _MODES
    from magnet_core.losses import NEEDED, OVER_DIM
    from magnet_core.model.cross_attention import ATTENTIONS
    from magnet_core.model.fusion import FUSIONS

    named = {name: get_args(field.annotation) for name, field in ModelConfig.model_fields.items()}
    assert (named["attend"], named["fusion"]) == (tuple(ATTENTIONS), tuple(FUSIONS))
    assert get_args(TuningConfig.model_fields["mode"].annotation) == tuple(_MODES)
    assert (get_args(Over), get_args(Likelihood)) == (tuple(OVER_DIM), tuple(NEEDED))


def test_each_part_is_called_what_a_recipe_calls_it() -> None:
    assert (
        refused(LossConfig, lambda_fine=-1.0) == "loss.lambda_fine: expected 0 or more, found -1.0; change the setting"
    )
    assert (
        refused(NormaliseConfig, scale=0)
        == "data.normalise.scale: expected a positive number, found 0; change the setting"
    )
    assert refused(TuningConfig, lora_rank=0) == "encoder.lora_rank: expected 1 to 65,536, found 0; change the setting"
    assert refused(ModelConfig, heads=3) == "model.width: expected a multiple of heads=3, found 256; change one of them"


def test_settings_are_read_without_what_takes_long() -> None:
    root = Path(__file__).resolve().parents[2]
    folders = [root / "magnet_core" / "settings", root / "train" / "settings"]
    paths = [path.relative_to(root).with_suffix("") for folder in folders for path in folder.glob("*.py")]
    modules = [".".join(path.parts).removesuffix(".__init__") for path in paths] + ["train.studies.configure"]
    code = f"import sys, {', '.join(modules)}; print({{'torch', 'timm', 'numpy', 'polars'}} & set(sys.modules))"
    result = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True)
    assert len(modules) > 10
    assert result.stdout.strip() == "set()"

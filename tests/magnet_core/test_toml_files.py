"""TOML that is absurd or hostile: one line each, in the recipe, on the command line and in names of settings."""

from pathlib import Path

import pytest

from magnet_core.errors import MagnetError
from magnet_core.settings import Layers, flat, nested, read_toml
from magnet_core.settings.toml_files import MOST_BYTES, MOST_DEEP, MOST_PARTS
from train.report.folder import read_toml_text

ABSURD = {
    "lists in lists": ("[" * 100_000, "lists at most 16 deep in each other, found more"),
    "tables in tables": ("{a=" * 100_000, "lists at most 16 deep in each other, found more"),
    "deep but whole": ("[" * 40 + "]" * 40, "lists at most 16 deep in each other, found more"),
    "many digits": ("1" * 5000, "Exceeds the limit (4300 digits)"),
    "many hexadecimal digits": ("0x" + "f" * 5000, "expected whole numbers of 64 bits, found one of 20000 bits"),
    "long name": ("{" + "a." * 100_000 + "a = 1}", "names of at most 32 parts, found one of 100001"),
    "long quoted name": ("{" + "'a b' . " * 100_000 + "a = 1}", "names of at most 32 parts, found one of 100001"),
    "long text": ("'" + "a" * MOST_BYTES + "'", "TOML"),
}


@pytest.mark.timeout(60)  # where none of them is read at length
@pytest.mark.parametrize(("value", "says"), ABSURD.values(), ids=ABSURD)
def test_absurd_toml_is_one_line_wherever_it_is_read(tmp_path: Path, value: str, says: str) -> None:
    path = tmp_path / "a.toml"
    path.write_text(f"x = {value}\n")
    for read in (
        lambda: read_toml(path, option="--recipe"),
        lambda: read_toml_text(path),
        lambda: Layers().add_assignments([f"x={value}"]),
    ):
        with pytest.raises(MagnetError) as told:
            read()
        line = str(told.value)
        assert says in line
        assert len(line) < 1000
        assert line.isprintable()


def test_a_name_of_a_setting_with_thousands_of_parts_is_one_line() -> None:
    with pytest.raises(MagnetError, match=f"--set: expected names of at most {MOST_PARTS} parts, found one of 100000"):
        Layers().add_assignments([".".join("a" * 100_000) + "=1"])
    with pytest.raises(MagnetError, match=r"space: expected names of at most .* found one of 40"):
        nested({".".join("a" * 20): {".".join("b" * 20): 1}}, where="space")


def test_what_is_within_the_bounds_is_read(tmp_path: Path) -> None:
    path = tmp_path / "a.toml"
    deep = "[" * (MOST_DEEP) + "]" * (MOST_DEEP)
    name = ".".join("a" * MOST_PARTS)
    path.write_text(f"x = {deep}\n# {'word. ' * 20}\ny = '{'a/b.c/' * 5000}'\n", encoding="utf-8-sig")
    tables = read_toml(path, option="--recipe")
    assert str(tables["x"]) == deep
    assert tables["y"] == "a/b.c/" * 5000
    assert flat(Layers().add_assignments([f"{name}=1"]).values) == {name: 1}


def test_a_value_of_set_is_one_value() -> None:
    values = Layers().add_assignments(["name=1\nseed = 2", "a=[1, 2]  # two", "b=1.5.2", "c=x = 1"]).values
    assert values == {"name": "1\nseed = 2", "a": [1, 2], "b": "1.5.2", "c": "x = 1"}


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"\xff\xfex\x00=\x001\x00", "expected TOML, found 'utf-8' codec can't decode.*save it as UTF-8 text"),
        (b"x = '\x00'", "expected TOML, found .*mend the file"),
        (b"x = 1\nx = 2", "expected TOML, found .*mend the file"),
        (b"#" * (MOST_BYTES + 1), "expected a TOML file of at most 1024 KiB, found a longer one"),
    ],
)
def test_a_file_that_is_no_toml_is_one_line(tmp_path: Path, content: bytes, says: str) -> None:
    path = tmp_path / "a.toml"
    path.write_bytes(content)
    with pytest.raises(MagnetError, match=says):
        read_toml(path, option="--recipe")


@pytest.mark.parametrize("name", ["a" * 300, "a\0b", "gone.toml", "."])
def test_a_path_that_leads_nowhere_is_one_line(tmp_path: Path, name: str) -> None:
    with pytest.raises(MagnetError, match="--recipe: expected a TOML file, found .*see recipes/"):
        read_toml(tmp_path / name, option="--recipe")

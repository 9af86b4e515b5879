"""Text of any kind where people write text: only a `MagnetError` comes out, always one line; what is taken round-trips.

The examples are drawn from a fixed seed, so that a run is the same every time; with FUZZ_EXAMPLES=5000 so many others
are hunted through.
"""

import csv
import io
import json
import os
import string
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tomli_w
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from extract.config import RunConfig, load_run
from extract.samples import COLUMNS, SEPARATORS, read_samples
from magnet_core.backbones.names import named_file, named_spec, split_revision, with_revision
from magnet_core.errors import MagnetError
from magnet_core.records import Sample
from magnet_core.sealed import read_sealed, write_sealed
from magnet_core.settings import Layers, flat, nested, read_toml
from train.settings.fit import FitConfig, load_config
from train.sweep.config import read_sweep

LONGEST_LINE = 4000
FLOATS = st.floats(allow_subnormal=False)  # libraries that are compiled for speed make zeros of subnormal numbers

HUNTED = int(os.environ.get("FUZZ_EXAMPLES", "0"))

bounded = settings(
    max_examples=HUNTED or 40,
    deadline=None,
    derandomize=not HUNTED,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


def told(read: Callable[[], Any]) -> Any:
    """What is read, or the error; anything but a `MagnetError` of one line fails the test."""
    try:
        return read()
    except MagnetError as error:
        line = str(error)
        assert line.isprintable()
        assert len(line) < LONGEST_LINE
        return error


# Text with what parsers stumble over: line ends, quotes, NUL, surrogates that no UTF-8 has, and blanks of all kinds.
awkward = st.text(
    st.one_of(st.sampled_from("\n\r\t \0\"'=.,;:[]{}#~/\\@\ufeff\u2028\x1b"), st.characters()), max_size=40
)
cells = st.one_of(st.sampled_from([*COLUMNS, "P1", "a.tif", "~nouser/a", "~", "0,25", "0.25!", "sep=;", ""]), awkward)


@bounded
@given(
    content=st.one_of(st.binary(max_size=300), st.lists(st.lists(cells, max_size=7), max_size=6)),
    separator=st.sampled_from(",;\t|"),
)
@example(content=[["slide_id", "image"], ["P1", "~nouser/a"]], separator=",")
@example(content=b"\xff\xfe\x00", separator=",")
@example(content=b"slide_id,image\nP1,\x00", separator=",")
def test_any_sheet(tmp_path: Path, content: bytes | list[list[str]], separator: str) -> None:
    path = tmp_path / "samples.csv"
    if not isinstance(content, bytes):
        lines = "\n".join(separator.join(row) for row in content)
        content = lines.encode("utf-8", errors="surrogatepass")
    path.write_bytes(content)
    samples = told(lambda: read_samples(path))
    assert isinstance(samples, MagnetError) or (samples and all(isinstance(sample, Sample) for sample in samples))


# What cannot be told from what a spreadsheet adds is left out: blanks at the ends of a cell.
plain = st.text(st.characters(codec="utf-8", exclude_characters="\0\r\n~"), max_size=10).map(str.strip)
ids = st.text(string.ascii_letters + string.digits, min_size=1, max_size=12)
rows = st.fixed_dictionaries(
    {
        "image": plain.filter(lambda text: text not in {"", "."} and not text.startswith("/")),
        "mpp": st.one_of(st.none(), st.floats(0.05, 20).map(lambda mpp: float(f"{mpp:.6g}"))),
        "overrides": st.booleans(),
        "patient": plain,
    }
)
tables = st.dictionaries(ids.map(str.lower), rows, min_size=1, max_size=3)


@bounded
@given(
    table=tables,
    separator=st.sampled_from([*SEPARATORS]),
    encoding=st.sampled_from(["utf-8", "utf-8-sig", "utf-16"]),
    line_end=st.sampled_from(["\n", "\r\n", "\r"]),
    says_sep=st.booleans(),
    decimal_comma=st.booleans(),
)
def test_a_sheet_round_trips_however_it_is_saved(
    tmp_path: Path,
    table: dict[str, Any],
    separator: str,
    encoding: str,
    line_end: str,
    says_sep: bool,
    decimal_comma: bool,
) -> None:
    text = io.StringIO(newline="")
    writer = csv.writer(text, delimiter=separator, lineterminator=line_end)
    writer.writerow(["slide_id", "image", "mpp", "patient"])
    for slide_id, row in table.items():
        mpp = "" if row["mpp"] is None else f"{row['mpp']!r}{'!' * row['overrides']}"
        writer.writerow([slide_id, row["image"], mpp.replace(".", "," if decimal_comma else "."), row["patient"]])
    path = tmp_path / "samples.csv"
    path.write_bytes((f"sep={separator}{line_end}" * says_sep + text.getvalue()).encode(encoding))
    assert read_samples(path) == [
        Sample(
            slide_id,
            tmp_path / row["image"],
            mpp=row["mpp"],
            patient=row["patient"] or slide_id,
            mpp_overrides=row["overrides"] and row["mpp"] is not None,
        )
        for slide_id, row in table.items()
    ]


def names_of(kind: Any) -> list[str]:
    return list(flat(kind().plain()))


numbers = st.one_of(
    st.integers(),
    FLOATS,
    st.sampled_from(["1e999", "-0", "0x" + "f" * 500, "9" * 4000, "0x" + "f" * 5000, "9" * 5000]),
)
toml_values = st.one_of(
    numbers.map(str),
    awkward.map(json.dumps),
    st.sampled_from(
        ["true", "[" * 50 + "]" * 50, "[" * 3000, "{a={a={}}}", "[]", "{}", "1979-05-27", '"\\u0000"', "''"]
    ),
    awkward,
)
setting_names = st.one_of(
    st.sampled_from(
        [*names_of(FitConfig), *names_of(RunConfig), "encoder", "optim", "recipe", "settings", "space", "x"]
    ),
    st.lists(st.sampled_from(["a", "optim", "lr", '"b c"', ""]), min_size=1, max_size=60).map(".".join),
)
assignments = st.lists(st.tuples(setting_names, toml_values).map("=".join), max_size=4)
spaces = st.sampled_from(["{low = 1, high = 3}", "{low = 1e-4, high = 1e-2, log = true}", "{choices = [1, 2]}"])
odd_spaces = st.builds("{{low = {}, high = {}, step = {}}}".format, toml_values, toml_values, toml_values)


@bounded
@given(lines=assignments)
@example(lines=["optim.lr=" + "1" * 5000])
@example(lines=['store="a\\u0000b"'])
@example(lines=[".".join("a" * 5000) + "=1"])
def test_any_recipe_and_any_set(tmp_path: Path, lines: list[str]) -> None:
    path = tmp_path / "a.toml"
    path.write_text("\n".join(lines), encoding="utf-8", errors="surrogatepass")
    told(lambda: load_run(path, {}, []))
    told(lambda: load_run(None, {}, lines))
    for config in (told(lambda: load_config(path)), told(lambda: load_config(None, lines))):
        if not isinstance(config, MagnetError):
            assert FitConfig.build(config.plain(), where="test").plain() == config.plain()


@bounded
@given(
    fixed=assignments,
    space=st.dictionaries(setting_names, st.one_of(spaces, odd_spaces, toml_values), max_size=3),
    rest=st.sampled_from(
        ["", "[search]\nseed = 1", "[search]\nsampler = 5", "recipe = '\\x00'", "recipe = 5", "recipe = '~'"]
    ),
)
def test_any_sweep(tmp_path: Path, fixed: list[str], space: dict[str, str], rest: str) -> None:
    path = tmp_path / "sweep.toml"
    searched = "\n".join(f"{name} = {value}" for name, value in space.items())
    text = f"{rest}\n[settings]\n{chr(10).join(fixed)}\n[space]\n{searched}\n"
    path.write_text(text, encoding="utf-8", errors="surrogatepass")
    sweep = told(lambda: read_sweep(path))
    assert isinstance(sweep, MagnetError) or sweep.config({name: item.ends[0] for name, item in sweep.space.items()})


keys = st.text(st.characters(codec="utf-8", exclude_characters="."), max_size=8)
leaves = st.one_of(
    st.booleans(),
    st.integers(-(2**63), 2**63 - 1),
    st.floats(allow_nan=False, allow_infinity=False, allow_subnormal=False),
    st.text(st.characters(codec="utf-8"), max_size=20),
)
trees = st.recursive(
    st.dictionaries(keys, leaves, max_size=4),
    lambda inner: st.dictionaries(keys, st.one_of(inner, leaves), max_size=4),
    max_leaves=8,
)


@bounded
@given(tree=trees)
def test_tables_round_trip_through_toml_json_and_dotted_names(tmp_path: Path, tree: dict[str, Any]) -> None:
    path = tmp_path / "a.toml"
    path.write_bytes(tomli_w.dumps(tree).encode())
    assert read_toml(path, option="--recipe") == tree
    assert nested(flat(tree), where="test") == tree
    assert Layers().add(tree, source="test").values == tree
    write_sealed(path, {**tree, "first": 1})
    assert read_sealed(path, expected="a tree", remedy="mend it") == {**tree, "first": 1}


@bounded
@given(
    content=st.one_of(st.binary(max_size=200), awkward.map(lambda text: text.encode(errors="replace"))),
    depth=st.integers(0, 100_000),
)
@example(content=b"1" * 5000, depth=0)
@example(content=b'{"checksum": "xxh3_64:"}', depth=0)
def test_any_json(tmp_path: Path, content: bytes, depth: int) -> None:
    path = tmp_path / "a.json"
    for start in (b"[", b'{"a":'):
        path.write_bytes(start * depth + content)
        read = told(lambda: read_sealed(path, expected="a record", remedy="restore it"))
        assert isinstance(read, dict | MagnetError)


@bounded
@given(
    name=st.one_of(
        awkward,
        st.builds("{}{}@{}".format, st.sampled_from(["uni", "hf-hub:", "timm:", "hf-hub:a/b"]), awkward, awkward),
    )
)
def test_any_name_of_a_backbone_or_of_weights(name: str) -> None:
    spec = told(lambda: named_spec(name))
    if spec is not None and not isinstance(spec, MagnetError):
        assert with_revision(*split_revision(name)) == name == spec.pinned_name
        assert named_spec(spec.pinned_name) == spec
    assert isinstance(told(lambda: named_file(name)), MagnetError | Path)


@bounded
@given(
    said=st.tuples(awkward, awkward, awkward, awkward), secret=st.text(string.ascii_letters + string.digits, min_size=8)
)
def test_any_error_is_one_printable_line_without_a_secret(said: tuple[str, str, str, str], secret: str) -> None:
    where, expected, found, remedy = said
    error = MagnetError(where, expected=expected, found=f"{found} https://me:{secret}@hub/", remedy=remedy)
    assert str(error).isprintable()
    assert secret not in str(error) or secret in "".join(said)


@pytest.mark.parametrize("option", ["~nouser/x", "a\0b", "a" * 5000])
def test_a_path_of_weights_that_is_none(option: str) -> None:
    with pytest.raises(MagnetError) as error:
        named_file(option)
    assert len(str(error.value)) < LONGEST_LINE

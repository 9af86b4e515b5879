"""The one reader of TOML: recipes, sweep files, values of `--set` and the recipe of a page, whatever is in them.

In: a path or a text. Out: nested tables, of bounds that everything behind can walk through; or one line that says what
is wrong. TOML 1.0 as the standard library reads it, in UTF-8 with or without a byte-order mark.
"""

import re
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from magnet_core.errors import MagnetError
from magnet_core.paths import no_file

MOST_BYTES = 1 << 20  # the largest recipe of ours has 2 KB
MOST_DEEP = 16  # tables and lists within each other; settings have three
LARGEST = 2**63 - 1  # of a whole number, as TOML has it
MOST_PARTS = 32  # of a dotted name; the parser's time grows with their square

_NAME_PART = r"""(?:"[^"\n]*+"|'[^'\n]*+'|[\w-]++)"""
_PART = re.compile(_NAME_PART)
_DOTTED = re.compile(rf"{_NAME_PART}(?:[ \t]*+\.[ \t]*+{_NAME_PART})*+")
_SHORTEST = 2 * MOST_PARTS + 1  # characters of a name of too many parts


def read_toml(path: Path, *, option: str) -> dict[str, Any]:
    """Read a TOML file that an option names."""
    text = toml_text(path, option=option)
    try:
        return parse_toml(text, where=str(path))
    except tomllib.TOMLDecodeError as error:
        raise MagnetError(path, expected="TOML", found=str(error), remedy="mend the file") from error


def toml_text(path: Path, *, option: str) -> str:
    """Return the text of a TOML file, which nobody has parsed yet; a file that is none of text is an error."""
    if fault := no_file(path):
        found = f"no file {path}" if fault == "no such file" else f"{path}: {fault}"
        raise MagnetError(option, expected="a TOML file", found=found, remedy="see recipes/")
    try:
        with path.open("rb") as file:
            content = file.read(MOST_BYTES + 1)
    except OSError as error:
        found = error.strerror or str(error)
        raise MagnetError(option, expected="a TOML file", found=f"{path}: {found}", remedy="see recipes/") from error
    if len(content) > MOST_BYTES:
        expected, found = f"a TOML file of at most {MOST_BYTES >> 10} KiB", "a longer one"
        raise MagnetError(path, expected=expected, found=found, remedy="see recipes/ for what one holds")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise MagnetError(path, expected="TOML", found=str(error), remedy="save it as UTF-8 text") from error


def parse_toml(text: str, *, where: str, remedy: str = "mend the file") -> dict[str, Any]:
    """Parse TOML; what is none raises `tomllib.TOMLDecodeError`, what is too deep, long or large a `MagnetError`."""
    if len(text) > MOST_BYTES:
        found = f"{len(text)} characters"
        raise MagnetError(where, expected=f"at most {MOST_BYTES} characters of TOML", found=found, remedy=remedy)
    for name in _DOTTED.finditer(text):
        if len(name[0]) >= _SHORTEST and (num_parts := len(_PART.findall(name[0]))) > MOST_PARTS:
            found = f"one of {num_parts}, '{name[0]}'"
            raise MagnetError(where, expected=f"names of at most {MOST_PARTS} parts", found=found, remedy=remedy)
    too_deep = f"tables and lists at most {MOST_DEEP} deep in each other"
    try:
        tables = tomllib.loads(text)
    except tomllib.TOMLDecodeError:
        raise
    except RecursionError as error:
        raise MagnetError(where, expected=too_deep, found="more", remedy=remedy) from error
    except ValueError as error:  # a whole number of more digits than Python reads
        raise MagnetError(where, expected="TOML", found=str(error).partition(";")[0], remedy=remedy) from error
    for value, depth in _values(tables):
        if depth > MOST_DEEP and isinstance(value, Mapping | list):
            raise MagnetError(where, expected=too_deep, found="more", remedy=remedy)
        if isinstance(value, int) and abs(value) > LARGEST:  # more digits than Python writes, if it was hexadecimal
            found = f"one of {value.bit_length()} bits"
            raise MagnetError(where, expected="whole numbers of 64 bits", found=found, remedy=remedy)
    return tables


def _values(tables: Mapping[str, Any]) -> Iterator[tuple[Any, int]]:
    """Yield every value, tables and lists too, and how deep it lies, without recursion."""
    waiting: list[tuple[Any, int]] = [(tables, 0)]
    while waiting:
        value, depth = waiting.pop()
        yield value, depth
        if isinstance(value, Mapping | list):
            waiting += [(each, depth + 1) for each in (value.values() if isinstance(value, Mapping) else value)]

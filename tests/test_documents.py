"""The documents name what is there: paths, functions in them, and the rooms of `train/` floor by floor."""

import re
from pathlib import Path

import pytest

from tests.test_architecture import ROOMS

ROOT = Path(__file__).resolve().parent.parent
DOCUMENTS = [
    "ARCHITECTURE.md",
    "README.md",
    "CONTRIBUTING.md",
    "SECURITY.md",
    *(f"docs/{path.name}" for path in (ROOT / "docs").glob("*.md")),
]
TREE = {path.name for path in ROOT.iterdir() if path.is_dir()} - {"demo", "study-demo", "store", "runs"}
MOST_WORDS = 30


def read(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def named_paths(text: str) -> list[str]:
    """What stands between backticks, behind a link or first on a line of a drawing, and lies in the tree."""
    prose = re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)
    quoted = re.findall(r"`([^`\s]+)`", prose) + re.findall(r"\]\(([^)#:]+)\)", prose)
    drawn = re.findall(r"^([\w.]+/)(?= )", text, re.MULTILINE)
    at_top = re.compile(r"[A-Z]+\.(md|cff)")
    return [name for name in quoted + drawn if name.split("/")[0] in TREE and "/" in name or at_top.fullmatch(name)]


def fault_of(name: str) -> str:
    """What is wrong with a path, or with `path:Name`; nothing if it is there."""
    path, _, inside = name.partition(":")
    if not any(ROOT.glob(path.rstrip("/"))):
        return f"{name}: no such path"
    said = inside.rpartition(".")[2]
    if said and not re.search(rf"^\s*(?:def|class) {said}\b", read(path), re.MULTILINE):
        return f"{name}: no {said} in the file"
    return ""


@pytest.mark.parametrize("document", DOCUMENTS)
def test_every_path_that_a_document_names_is_there(document: str) -> None:
    assert [fault for name in named_paths(read(document)) if (fault := fault_of(name))] == []


def test_a_name_that_is_not_there_is_seen() -> None:
    text = "`train/gone.py`, `train/pipeline.py:nothing`, `GONE.md`, [x](docs/gone.md)\n\n```\ntests/  all\n```\n"
    names = named_paths(text)
    assert names == ["train/gone.py", "train/pipeline.py:nothing", "GONE.md", "docs/gone.md", "tests/"]
    assert [bool(fault_of(name)) for name in names] == [True, True, True, True, False]


def test_the_drawing_has_the_rooms_on_their_floors() -> None:
    drawn = re.findall(r"^ ?(\d+)  ([\w, ]+?)  ", read("ARCHITECTURE.md"), re.MULTILINE)
    assert [int(floor) for floor, _ in drawn] == list(reversed(range(len(ROOMS))))
    assert {int(floor): set(rooms.split(", ")) for floor, rooms in drawn} == dict(enumerate(ROOMS))


def test_a_newcomer_has_few_words_to_learn() -> None:
    table = read("ARCHITECTURE.md").split("\n## Words\n")[1].split("\n## ")[0]
    _, _, *words = re.findall(r"^\| ([^|]+) \| .+ \|$", table, re.MULTILINE)
    assert 0 < len(set(words)) == len(words) <= MOST_WORDS

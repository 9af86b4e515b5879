"""The house rules that a reader should not have to check: arrows run down, files stay short, nothing is swallowed.

Every rule is a function from one file's syntax tree to a list of offences, so that a failure names file and line.
"""

import ast
import fnmatch
import re
import tomllib
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from setuptools import PackageFinder

ROOT = Path(__file__).resolve().parent.parent
LAYERS = {"magnet_core": 0, "cache": 1, "extract": 2, "train": 3}
# The rooms of `train/`, one floor a line, from the ground up: what stands side by side does not import each other.
ROOMS = (
    {"settings", "places"},
    {"data"},
    {"model", "evaluation"},
    {"learning"},
    {"systems"},
    {"studies"},
    {"pipeline", "predict"},
    {"sweep"},
    {"report"},
    {"commands"},
    {"cli"},
    {"__main__"},
)
FLOORS = {room: floor for floor, rooms in enumerate(ROOMS) for room in rooms}
SPEAKS_TYPER = ("*/cli.py", "*/options.py", "*/commands/*.py", "magnet_core/commandline.py")
WRITES_LINES = ("magnet_core/console.py",)  # between the bars, for everyone else
MAX_FILE_LINES = 400
MAX_FUNCTION_LINES = 80

CODE = sorted(path for package in LAYERS for path in (ROOT / package).rglob("*.py"))
TRAIN = [path for path in CODE if (ROOT / "train") in path.parents and path != ROOT / "train" / "__init__.py"]
TESTS = sorted((ROOT / "tests").rglob("*.py"))
BENCHMARKS = sorted((ROOT / "benchmarks").rglob("*.py"))

FUNCTION = (ast.FunctionDef, ast.AsyncFunctionDef)

Rule = Callable[[Path], list[str]]


@cache
def parse(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), filename=str(path))


def short(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def offences(rule: Rule, paths: list[Path]) -> list[str]:
    return [f"{short(path)}:{offence}" for path in paths for offence in rule(path)]


def last_name(node: ast.expr) -> str:
    """`c` of `a.b.c`, `f` of `f(...)`, or nothing."""
    match node:
        case ast.Name(id=name) | ast.Attribute(attr=name):
            return name
        case ast.Call(func=func):
            return last_name(func)
        case _:
            return ""


def imported_modules(path: Path) -> Iterator[tuple[int, str]]:
    """Line and absolute name of every module a file imports: at the top, inside functions, or by a literal name."""
    package = path.relative_to(ROOT).with_suffix("").parts[:-1]
    for node in ast.walk(parse(path)):
        match node:
            case ast.Import(names=names):
                yield from ((node.lineno, name.name) for name in names)
            case ast.ImportFrom(module=module, level=level, names=names):
                base = package[: len(package) - level + 1] if level else ()
                source = ".".join((*base, module) if module else base)
                # of a whole package, what is taken from it may be a module
                yield from ((node.lineno, source if "." in source else f"{source}.{name.name}") for name in names)
            case ast.Call(args=[ast.Constant(value=str(module)), *_]) if last_name(node) in {
                "import_module",
                "__import__",
                "importorskip",
            }:
                yield node.lineno, module


def imports_that_do_not_go_down(path: Path) -> list[str]:
    """Between packages; of `train`, its predictions alone know `extract`, as a slide that is in no store needs it."""
    home, *inner = path.relative_to(ROOT).parts
    barred = {"extract"} if home == "train" and inner[0] != "predict" else set()
    found = []
    for line, module in dict.fromkeys(imported_modules(path)):
        other = module.split(".")[0]
        allowed = other == home or other not in {*LAYERS, "tests", "benchmarks"} or LAYERS.get(other, 9) < LAYERS[home]
        if not allowed or other in barred:
            found.append(f"{line}: {home} imports {module}")
    return found


def room_of(path: Path) -> str:
    """The room of a file of `train/`: its folder, or the file itself where it lies beside the rooms."""
    return path.relative_to(ROOT).with_suffix("").parts[1]


def imports_between_rooms_that_do_not_go_down(path: Path) -> list[str]:
    home = room_of(path)
    found = []
    for line, module in dict.fromkeys(imported_modules(path)):
        package, _, inside = module.partition(".")
        other = inside.partition(".")[0]
        if package == "train" and other != home and FLOORS.get(other, len(ROOMS)) >= FLOORS[home]:
            found.append(f"{line}: {home} imports {module}")
    return found


def typer_in_library_code(path: Path) -> list[str]:
    if any(fnmatch.fnmatch(short(path), pattern) for pattern in SPEAKS_TYPER):
        return []
    lines = imported_modules(path)
    return [f"{line}: {module}" for line, module in lines if module.split(".")[0] in {"typer", "click"}]


def lines_written_past_the_console(path: Path) -> list[str]:
    """What library code has to say goes through `logger` or `notice` of `magnet_core.console`."""
    if short(path) in WRITES_LINES:
        return []
    found = []
    for node in ast.walk(parse(path)):
        match node:
            case ast.Name(id="print"):
                found.append(f"{node.lineno}: print")
            case ast.Attribute(ast.Name("tqdm"), "write"):
                found.append(f"{node.lineno}: tqdm.write")
    return found


def too_long(path: Path) -> list[str]:
    lines = path.read_text(encoding="utf-8").count("\n")
    found = [f"{lines}: {lines} lines in the file"] if lines > MAX_FILE_LINES else []
    for node in ast.walk(parse(path)):
        if isinstance(node, FUNCTION):
            length = (node.end_lineno or node.lineno) - node.lineno + 1
            if length > MAX_FUNCTION_LINES:
                found.append(f"{node.lineno}: {length} lines in {node.name}")
    return found


def unsafe_loading(path: Path) -> list[str]:
    """Formats that run code when they are read."""
    banned = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"}
    found = [f"{line}: {module}" for line, module in imported_modules(path) if module.split(".")[0] in banned]
    for node in ast.walk(parse(path)):
        match node:
            case ast.keyword(arg="weights_only", value=ast.Constant(value=False)):
                found.append(f"{node.lineno}: weights_only=False")
            case ast.keyword(arg="allow_pickle", value=ast.Constant(value=True)):
                found.append(f"{node.lineno}: allow_pickle=True")
    return found


def swallowed(path: Path) -> list[str]:
    """Exceptions caught without a name, and warnings silenced for everyone."""
    broad = {"Exception", "BaseException"}
    found = []
    for node in ast.walk(parse(path)):
        match node:
            case ast.ExceptHandler(type=None):
                found.append(f"{node.lineno}: bare except")
            case ast.ExceptHandler(type=caught) if {
                last_name(each) for each in getattr(caught, "elts", [caught])
            } & broad:
                found.append(f"{node.lineno}: broad except")
            case ast.Call(args=args) if last_name(node) == "suppress" and {last_name(each) for each in args} & broad:
                found.append(f"{node.lineno}: suppresses everything")
            case ast.Call(
                func=ast.Attribute(ast.Name("warnings"), "filterwarnings"),
                args=[ast.Constant(value="ignore")],
                keywords=[],
            ):
                found.append(f"{node.lineno}: silences every warning")
    return found


def unfinished(path: Path) -> list[str]:
    mark = re.compile(r"#.*\b(TO[D]O|FIX[M]E|X{3}|HA[C]K)\b")  # spelt so that it does not find itself
    lines = enumerate(path.read_text(encoding="utf-8").splitlines(), start=1)
    found = [f"{number}: {line.strip()}" for number, line in lines if mark.search(line)]
    names = (node for node in ast.walk(parse(path)) if isinstance(node, ast.Name))
    return found + [f"{node.lineno}: {node.id}" for node in names if node.id == "NotImplementedError"]


def missing_docstring(path: Path) -> list[str]:
    tree = parse(path)
    return ["1: no module docstring"] if tree.body and ast.get_docstring(tree) is None else []


def lacking_a_check(path: Path) -> list[str]:
    """Test functions that assert nothing, themselves or through a helper of the same file, or nothing but a shape.

    A shape with a zero in it is a check: there is nothing else to say of an array without elements.
    """
    functions = {node.name: node for node in ast.walk(parse(path)) if isinstance(node, FUNCTION)}

    def checks(name: str, seen: frozenset[str]) -> Iterator[ast.AST]:
        for node in ast.walk(functions[name]):
            if isinstance(node, ast.Assert):
                yield node.test
            elif isinstance(node, ast.Call):
                called = last_name(node)
                if called in {"raises", "warns"} or called.lstrip("_").startswith("assert"):
                    yield node
                elif called in functions and called not in seen:
                    yield from checks(called, seen | {called})

    def is_shape(check: ast.AST) -> bool:
        empty = any(isinstance(node, ast.Constant) and node.value == 0 for node in ast.walk(check))
        return isinstance(check, ast.Compare) and last_name(check.left) == "shape" and not empty

    return [
        f"{node.lineno}: {name} asserts nothing but shapes"
        for name, node in functions.items()
        if name.startswith("test_") and all(is_shape(check) for check in checks(name, frozenset({name})))
    ]


EVERYTHING = CODE + TESTS + BENCHMARKS
RULES: dict[Rule, list[Path]] = {
    imports_that_do_not_go_down: CODE,
    imports_between_rooms_that_do_not_go_down: TRAIN,
    typer_in_library_code: CODE,
    lines_written_past_the_console: CODE,
    missing_docstring: CODE + BENCHMARKS,
    too_long: EVERYTHING,
    unsafe_loading: CODE + BENCHMARKS,  # a test may pickle, to show that an object reaches a spawned process
    swallowed: EVERYTHING,
    unfinished: EVERYTHING,
    lacking_a_check: TESTS,
}


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_house_rule(rule: Rule) -> None:
    found = offences(rule, RULES[rule])
    assert not found, "\n".join(found)


@pytest.mark.parametrize(
    ("rule", "source"),
    [
        (imports_that_do_not_go_down, "import train.cli"),
        (imports_that_do_not_go_down, "def f():\n    from extract import cli"),
        (imports_that_do_not_go_down, "from ..train import cli"),
        (imports_that_do_not_go_down, "importlib.import_module('extract.cli')"),
        (missing_docstring, "x = 1"),
        (too_long, "x = 1\n" * 401),
        (too_long, "def f():\n" + "    x = 1\n" * 80),
        (unsafe_loading, "import pickle"),
        (unsafe_loading, "torch.load(path, weights_only=False)"),
        (unsafe_loading, "numpy.load(path, allow_pickle=True)"),
        (swallowed, "try:\n    f()\nexcept:\n    pass"),
        (swallowed, "try:\n    f()\nexcept (OSError, Exception):\n    pass"),
        (swallowed, "with contextlib.suppress(Exception):\n    f()"),
        (swallowed, "warnings.filterwarnings('ignore')"),
        (unfinished, "x = 1  # TO" + "DO: more"),
        (unfinished, "def f():\n    raise NotImplementedError"),
        (lacking_a_check, "def test_f():\n    f()"),
        (lacking_a_check, "def test_f():\n    assert f().shape == (1,)"),
    ],
)
def test_a_rule_sees_its_offence(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, rule: Rule, source: str) -> None:
    monkeypatch.setattr(f"{__name__}.ROOT", tmp_path)
    path = tmp_path / "cache" / "offender.py"
    path.parent.mkdir()
    path.write_text(source + "\n")
    assert len(rule(path)) == 1


@pytest.mark.parametrize(
    ("rule", "place", "source", "count"),
    [
        (imports_that_do_not_go_down, "train/studies/x.py", "from extract.readers import READERS", 1),
        (imports_that_do_not_go_down, "train/predict/x.py", "from extract.readers import READERS", 0),
        (imports_that_do_not_go_down, "extract/x.py", "def f():\n    import train.predict.slides", 1),
        *(
            (imports_between_rooms_that_do_not_go_down, f"train/{low}/x.py", f"from train.{high}.y import z", 1)
            for low in ("data", "model", "learning")
            for high in ("systems", "studies", "sweep", "report", "commands")
        ),
        (imports_between_rooms_that_do_not_go_down, "train/data/x.py", "from ..learning import loop", 1),
        (imports_between_rooms_that_do_not_go_down, "train/model/x.py", "import train.evaluation.scores", 1),
        (imports_between_rooms_that_do_not_go_down, "train/predict/x.py", "from train import pipeline", 1),
        (imports_between_rooms_that_do_not_go_down, "train/settings/x.py", "from train.cellar import x", 1),
        (imports_between_rooms_that_do_not_go_down, "train/pipeline.py", "def f():\n    import train.sweep.run", 1),
        (imports_between_rooms_that_do_not_go_down, "train/systems/rivals/x.py", "import train.systems.base", 0),
        (imports_between_rooms_that_do_not_go_down, "train/sweep/x.py", "from train.pipeline import fit", 0),
        (typer_in_library_code, "train/predict/x.py", "def f():\n    import typer", 1),
        (typer_in_library_code, "train/commands/x.py", "import typer", 0),
        (typer_in_library_code, "extract/options.py", "import typer", 0),
        (lines_written_past_the_console, "extract/x.py", "print('done')", 1),
        (lines_written_past_the_console, "train/x.py", "from tqdm import tqdm\nsay = tqdm.write", 1),
        (lines_written_past_the_console, "magnet_core/console.py", "tqdm.write('done')", 0),
    ],
)
def test_a_rule_knows_where_a_file_lies(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, rule: Rule, place: str, source: str, count: int
) -> None:
    monkeypatch.setattr(f"{__name__}.ROOT", tmp_path)
    path = tmp_path / place
    path.parent.mkdir(parents=True)
    path.write_text(source + "\n")
    assert len(rule(path)) == count


def test_every_room_has_its_floor() -> None:
    assert {room_of(path) for path in TRAIN} == FLOORS.keys()


def setuptools_settings() -> dict[str, Any]:
    pyproject = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    return dict(pyproject["tool"]["setuptools"])


def test_packages_on_disk_are_the_packages_that_are_installed() -> None:
    where = setuptools_settings()["packages"]["find"]
    assert where["namespaces"] is False  # else a folder without `__init__.py` is a package, too
    installed = PackageFinder.find(str(ROOT), include=where["include"])
    assert sorted(installed) == sorted({short(path.parent).replace("/", ".") for path in CODE})


def test_files_beside_the_code_are_installed_with_it() -> None:
    patterns = setuptools_settings()["package-data"]["*"]
    beside = (path for package in LAYERS for path in (ROOT / package).rglob("*") if path.is_file())
    names = [short(path) for path in beside if path.suffix not in {".py", ".pyc"}]
    assert [name for name in names if not any(fnmatch.fnmatch(Path(name).name, pattern) for pattern in patterns)] == []


def test_no_module_is_named_for_nothing() -> None:
    assert [short(path) for path in CODE + TESTS if path.stem in {"utils", "util", "helpers", "misc", "common"}] == []


def test_no_file_names_a_place_on_someones_machine() -> None:
    folders = [*LAYERS, "tests", "benchmarks", "docs", "recipes", ".ci", ".github"]
    inside = (path for folder in folders for path in (ROOT / folder).rglob("*") if path.is_file())
    written = {".py", ".md", ".toml", ".json", ".csv", ".html", ".svg", ".yml", ".yaml", ".txt", ".sh", ""}
    at_top = (
        path
        for path in ROOT.iterdir()
        if path.suffix in {".md", ".toml", ".lock", ".cff", ".yaml"} or path.name == "Makefile"
    )
    someones = re.compile(rb"(?<![\w.~-])/(?:work|home|root|Users|mnt|opt)/")
    texts = (*(path for path in inside if path.suffix in written), *at_top)
    assert [short(path) for path in texts if someones.search(path.read_bytes())] == []

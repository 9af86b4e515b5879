"""The lock installs what pyproject.toml asks for, exactly and anywhere; the code imports only what is asked for."""

import ast
import importlib.metadata
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parent.parent
OURS = ("magnet_core", "cache", "extract", "train")
LOCKED_EXTRAS = ("cpu", "interop", "cluster", "dev")


def read_lock(name: str) -> dict[str, Requirement]:
    lines = (line.partition("#")[0].strip() for line in (ROOT / name).read_text(encoding="utf-8").splitlines())
    pins = [Requirement(line) for line in lines if line]
    by_name: dict[str, Requirement] = {canonicalize_name(pin.name): pin for pin in pins}
    assert len(by_name) == len(pins), f"{name} names a package twice"
    return by_name


def read_asked(*extras: str) -> list[Requirement]:
    """What pyproject.toml asks for: the build backend, the dependencies, and those of the extras."""
    pyproject = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    project = pyproject["project"]
    optional = [line for extra in extras for line in project["optional-dependencies"][extra]]
    return [Requirement(line) for line in (*pyproject["build-system"]["requires"], *project["dependencies"], *optional)]


def version(pin: Requirement) -> str:
    [specifier] = pin.specifier
    return specifier.version


@pytest.mark.parametrize("name", ["torch", "torchvision"])
def test_torch_and_torchvision_are_pinned_so_that_no_local_build_slips_in(name: str) -> None:
    pin = read_lock("requirements.lock")[name]
    assert [specifier.operator for specifier in pin.specifier] == ["==="]
    assert pin.specifier.contains(version(pin))
    assert not pin.specifier.contains(f"{version(pin)}+cpu")


@pytest.mark.parametrize("lock", ["requirements.lock", "requirements-gpu.lock"])
def test_every_line_of_a_lock_is_one_exact_version_from_the_users_own_index(lock: str) -> None:
    pins = read_lock(lock)
    assert [name for name, pin in pins.items() if pin.url or {s.operator for s in pin.specifier} - {"==", "==="}] == []
    assert [name for name, pin in pins.items() if len(pin.specifier) != 1 or "*" in version(pin)] == []
    assert list(pins) == sorted(pins)


def test_the_lock_satisfies_pyproject() -> None:
    pins = read_lock("requirements.lock")
    asked = read_asked(*LOCKED_EXTRAS)
    assert [str(need) for need in asked if canonicalize_name(need.name) not in pins] == []
    assert [
        str(need) for need in asked if not need.specifier.contains(version(pins[canonicalize_name(need.name)]))
    ] == []


def test_the_two_builds_of_faiss_are_never_locked_together() -> None:
    cpu, gpu = read_lock("requirements.lock"), read_lock("requirements-gpu.lock")
    assert ("faiss-cpu" in cpu, "faiss-gpu" in cpu) == (True, False)
    assert ("faiss-cpu" in gpu, "faiss-gpu" in gpu) == (False, True)
    assert version(cpu["faiss-cpu"]) == version(gpu["faiss-gpu"])


def test_the_code_imports_only_what_pyproject_asks_for() -> None:
    pyproject = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    asked = {canonicalize_name(need.name) for need in read_asked(*pyproject["project"]["optional-dependencies"])}
    providers = importlib.metadata.packages_distributions()
    undeclared = set()
    for path in (path for package in OURS for path in (ROOT / package).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            match node:
                case ast.Import(names=names):
                    modules = [name.name for name in names]
                case ast.ImportFrom(module=str(module), level=0):
                    modules = [module]
                case _:
                    continue
            for top in {module.split(".")[0] for module in modules} - {*OURS, *sys.stdlib_module_names}:
                if not {canonicalize_name(name) for name in providers.get(top, [top])} & asked:
                    undeclared.add(f"{path.relative_to(ROOT)}: {top}")
    assert sorted(undeclared) == []

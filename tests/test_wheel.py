"""The built wheel, alone in a clean environment: all files are in it, and both stages run from it."""

import os
import shutil
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("magnet_core", "cache", "extract", "train")
BACKBONE = ("--backbone", "timm:test_mambaout")

pytestmark = pytest.mark.slow


def run(*command: str | Path, cwd: Path) -> str:
    """Run a command outside the checkout, with none of its modules in sight; return what it printed."""
    environment = {key: value for key, value in os.environ.items() if key not in {"PYTHONPATH", "PYTHONHOME"}}
    done = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=500)
    assert done.returncode == 0, f"{command}:\n{done.stdout}{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built from a copy: a build leaves files in the folder that it builds from."""
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    for package in PACKAGES:
        shutil.copytree(ROOT / package, source / package, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    build = ("wheel", "--no-deps", "--no-build-isolation", "--no-index", "--wheel-dir", folder)
    run(sys.executable, "-m", "pip", *build, source, cwd=folder)
    [built] = folder.glob("magnet_hd-*.whl")
    return built


@pytest.fixture(scope="module")
def clean_environment(wheel: Path) -> Path:
    """`bin` of an environment with the wheel installed and this one's dependencies in sight, but no editable install.

    A path that a .pth file adds is searched for modules, but the .pth files in it, the editable install's own, are not
    read.
    """
    folder = wheel.parent / "environment"
    venv.create(folder, symlinks=True)
    python = folder / "bin" / "python"
    pip = (sys.executable, "-m", "pip", "--python", python, "install", "--no-deps", "--no-index")
    run(*pip, wheel, cwd=wheel.parent)
    purelib = Path(sysconfig.get_path("purelib", "venv", {"base": str(folder)}))
    dependencies = dict.fromkeys(sysconfig.get_path(kind) for kind in ("purelib", "platlib"))
    (purelib / "dependencies.pth").write_text("\n".join(dependencies) + "\n", encoding="utf-8")
    return folder / "bin"


def test_every_file_of_the_packages_is_in_the_wheel_and_nothing_else(wheel: Path) -> None:
    files = (path for package in PACKAGES for path in (ROOT / package).rglob("*") if path.is_file())
    on_disk = {path.relative_to(ROOT).as_posix() for path in files if "__pycache__" not in path.parts}
    with zipfile.ZipFile(wheel) as archive:
        packed = {name for name in archive.namelist() if ".dist-info/" not in name}
        licences = [name for name in archive.namelist() if name.endswith("LICENSE")]
    assert packed == on_disk
    assert any(name.endswith(".jinja") for name in packed)
    assert len(licences) == 1


def test_the_wheels_own_modules_are_imported(clean_environment: Path) -> None:
    code = f"import {', '.join(PACKAGES)}; print({', '.join(f'{package}.__file__' for package in PACKAGES)}, sep='\\n')"
    places = run(clean_environment / "python", "-c", code, cwd=clean_environment).splitlines()
    assert [Path(place).is_relative_to(clean_environment.parent) for place in places] == [True] * len(PACKAGES)


def test_both_stages_run_from_the_wheel(clean_environment: Path, tmp_path: Path) -> None:
    def command(line: str, *more: str) -> str:
        name, *arguments = line.split()
        return run(clean_environment / name, *arguments, *more, cwd=tmp_path)

    assert "inspect" in command("extract --help")
    command("extract synth data --slides 2 --seed 0 --size-mm 0.4 --genes 60")
    rows = "--samples data/samples.csv --store store --targets 8 --bins 300 --spots 40"
    command(f"extract run {rows} --tokens 1 --weights random", *BACKBONE)
    assert "test_mambaout" in command("cache info store")
    settings = "--set data.panel=20 --set optim.epochs=1 --set model.width=16"
    command(f"train fit --fold 0 --store store --runs runs --name small {settings}", *BACKBONE)
    assert (tmp_path / "runs" / "small" / "table.csv").is_file()
    command("train report runs/small --out report.html")
    assert (tmp_path / "report.html").read_text(encoding="utf-8").startswith("<!doctype html>")

"""The files around the code name what is there: citation, changelog, hooks, workflow and the targets of make."""

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml
from packaging.specifiers import SpecifierSet

ROOT = Path(__file__).resolve().parent.parent
CODE = ("magnet_core", "cache", "extract", "train")


def read(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def project() -> dict[str, Any]:
    return dict(tomllib.loads(read("pyproject.toml"))["project"])


def makefile_targets() -> set[str]:
    return set(re.findall(r"^([a-z][a-z-]*):.* ## ", read("Makefile"), re.MULTILINE))


def test_the_citation_names_this_software_and_the_paper() -> None:
    citation = yaml.safe_load(read("CITATION.cff"))
    assert citation.keys() >= {"cff-version", "message", "title", "authors"}  # what CFF 1.2.0 requires
    assert citation["cff-version"] == "1.2.0"
    assert (citation["version"], citation["license"]) == (project()["version"], project()["license"])
    assert all(author.keys() & {"name", "family-names"} for author in citation["authors"])
    [paper] = citation["references"]
    assert paper.keys() >= {"type", "title", "authors"}
    assert paper["title"].startswith("MagNet: Multi-Level Attention Graph Network")
    assert (paper["type"], paper["year"], len(paper["authors"])) == ("conference-paper", 2025, 15)
    assert all(author["family-names"] and author["given-names"] for author in paper["authors"])


def test_the_changelog_has_the_version_and_room_for_the_next() -> None:
    headings = re.findall(r"^## \[(.+?)\](?: - (\d{4}-\d{2}-\d{2}))?$", read("CHANGELOG.md"), re.MULTILINE)
    assert headings[0] == ("Unreleased", "")
    assert headings[1][0] == project()["version"]
    assert all(date for _, date in headings[1:])


def test_the_hooks_run_what_lint_runs() -> None:
    [local] = yaml.safe_load(read(".pre-commit-config.yaml"))["repos"]
    assert local["repo"] == "local"
    entries = [hook["entry"].removesuffix(" --force-exclude") for hook in local["hooks"]]
    lint = read("Makefile").split("\nlint:")[1].split("\n\n")[0].replace("$(BIN)", ".venv/bin")
    commands = re.findall(r"@(.+)", lint.replace("$(CODE)", " ".join(CODE)))
    assert entries == [re.sub(r" (--check|--quiet|\.)(?= |$)", "", command) for command in commands]


def test_the_workflow_makes_targets_that_there_are_on_every_python() -> None:
    jobs = yaml.safe_load(read(".github/workflows/tests.yml"))["jobs"]
    pythons = jobs["quick"]["strategy"]["matrix"]["python"]
    assert all(f"{version}.0" in SpecifierSet(project()["requires-python"]) for version in pythons)
    assert f"Python {', '.join(pythons[:-1])} or {pythons[-1]}" in read("CONTRIBUTING.md")
    commands = [step["run"].split() for job in jobs.values() for step in job["steps"] if "run" in step]
    assert [command[1] for command in commands] == ["lint", "test", "test-slow"]
    assert all(command[0] == "make" and command[2].startswith("PYTHON=python") for command in commands)


@pytest.mark.parametrize("name", ["README.md", "CONTRIBUTING.md", ".ci/run", ".github/workflows/tests.yml"])
def test_every_target_that_is_named_is_in_the_makefile(name: str) -> None:
    quoted = re.findall(r"(?:`|run: |^)make ([a-z][a-z-]*)", read(name), re.MULTILINE)
    quietly = re.findall(r"^quietly ([a-z-]+)$", read(name), re.MULTILINE)
    assert quoted or quietly
    assert {*quoted, *quietly} <= makefile_targets()

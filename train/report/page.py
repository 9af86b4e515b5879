"""A page of results: from folders to sections, from sections to one HTML file that needs nothing else.

In: folders of `train study`, `train cv`, `train fit` and `train sweep`. Out: the page. Its template is beside this file
and escapes every text.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from magnet_core.errors import MagnetError
from magnet_core.files import write_text
from magnet_core.resampling import metric_titles
from train.report.parts import Section, Table
from train.report.study import study_section
from train.report.sweep import sweep_section
from train.studies.record import FORMER_FIT
from train.studies.record import RECORD as STUDY
from train.sweep.record import RECORD as SWEEP

PICTURE_BYTES = 3_000_000  # of all sections; base64 makes 4 MB of them
MADE_BY = {STUDY: "train fit, cv or study", SWEEP: "train sweep"}
TOGETHER_NOTE = "Rows can be compared where target, genes and slides are the same."


def write_report(folders: Sequence[Path], page: Path) -> Path:
    """Write the page of these results, whole or not at all."""
    names = Counter(folder.name for folder in folders)
    sections = []
    for folder in folders:
        section = read_section(folder, picture_bytes=PICTURE_BYTES // len(folders))
        sections.append(section if names[folder.name] == 1 else named_by_path(section, folder))
    write_text(page, render(sections))
    return page


def named_by_path(section: Section, folder: Path) -> Section:
    """Name a section by its whole path, for folders that share a name."""
    title = section.title.replace(folder.name, str(folder), 1)
    return replace(section, title=title, main=[[str(folder), *row[1:]] for row in section.main])


def read_section(folder: Path, *, picture_bytes: int) -> Section:
    """Read a result of any kind, known by the file its command writes last."""
    if not folder.is_dir():
        raise MagnetError(folder, expected="the folder of a result", found="no folder", remedy="correct the path")
    if (folder / STUDY).is_file():
        return study_section(folder, picture_bytes=picture_bytes)
    if (folder / FORMER_FIT).is_file():
        raise MagnetError(
            folder,
            expected=f"a result with {STUDY}",
            found="a fit of version 0.1",
            remedy="give 'train fit' with its settings again, under another --name; 'train predict' reads it as it is",
        )
    if (folder / SWEEP).is_file():
        return sweep_section(folder)
    raise MagnetError(
        folder,
        expected=", ".join(f"{name} (of {command})" for name, command in MADE_BY.items()),
        found="none of them",
        remedy="give the command that made the folder again: it goes on where it was stopped",
    )


def render(sections: Sequence[Section]) -> str:
    """Lay sections out; several are put side by side first."""
    templates = FileSystemLoader(Path(__file__).parent)
    environment = Environment(loader=templates, autoescape=True, undefined=StrictUndefined, trim_blocks=True)
    rows = [row for section in sections for row in section.main]
    headings = ("result", "target", "system", "slides", *metric_titles(), "its 95 %", "÷ ceiling")
    together = Table("All results", headings, rows, texts=4, note=TOGETHER_NOTE) if len(sections) > 1 else None
    title = sections[0].title if len(sections) == 1 else f"{len(sections)} results"
    return environment.get_template("page.html.jinja").render(title=title, sections=sections, together=together)

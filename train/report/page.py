"""A page of results: from folders to sections, from sections to one HTML file that needs nothing else.

In: folders of `train study`, `train cv`, `train fit` and `train sweep`. Out: the page. Its template is beside this file
and escapes every text.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from cache.store import Store
from magnet_core.console import logger
from magnet_core.errors import MagnetError
from magnet_core.files import write_text
from magnet_core.resampling import metric_titles
from train.places import TABLE, check_result
from train.report.parts import Section, Table
from train.report.slide_maps import MapSource, find_slide_maps
from train.report.study import study_section
from train.report.sweep import sweep_section
from train.report.viewer.build import Viewer, build_viewer
from train.studies.ceiling_note import BOUND

log = logger(__name__)

PICTURE_BYTES = 3_000_000  # of all sections; base64 makes 4 MB of them
TOGETHER_NOTE = (
    "Rows can be compared where target, genes and slides are the same. ÷ ceiling: PCC per gene as a share of the noise "
    f"ceiling, {BOUND}."
)


def write_report(folders: Sequence[Path], page: Path, *, store: Path | None = None, genes: Sequence[str] = ()) -> Path:
    """Write the page of these results, whole or not at all.

    `store` is where that of the tables has moved to; maps of `genes`, by names or ids, come into it before others.
    """
    if store is not None:
        Store(store)  # that there is none is told before anything is read
    folders = list({folder.resolve(): folder for folder in folders}.values())
    names = Counter(folder.name for folder in folders)
    sections = []
    for folder in folders:
        section = read_section(folder, picture_bytes=PICTURE_BYTES // len(folders))
        sections.append(section if names[folder.name] == 1 else named_by_path(section, folder))
    sources, lacking = find_maps(folders, store=store)
    viewer = build_viewer(sources, page, wanted=genes) if sources else None
    write_text(page, render(sections, viewer=viewer, lacking=lacking))
    return page


def find_maps(folders: Sequence[Path], *, store: Path | None = None) -> tuple[list[tuple[str, MapSource]], list[str]]:
    """List the maps of all tables with their titles, whole slides first; and why others have none, a line each."""
    sources, lacking = list[tuple[str, MapSource]](), list[str]()
    for folder in folders:
        if not (folder / TABLE).is_file():
            continue
        try:
            of_table = find_slide_maps(folder, store=store)
        except MagnetError as error:
            log.warning("no maps: %s", error)
            lacking.append(str(error))
            continue
        result = f", {folder.name}" if len(folders) > 1 else ""
        sources += [(f"{each.slide_id}, {each.group}{kind_of(each)}{result}", each) for each in of_table]
    return sorted(sources, key=lambda each: (each[1].learnt_from, not each[1].whole)), lacking


def kind_of(source: MapSource) -> str:
    """What sets a map off from those of test slides as a table has them."""
    return (", whole" if source.whole else "") + (", learnt from" if source.learnt_from else "")


def named_by_path(section: Section, folder: Path) -> Section:
    """Name a section by its whole path, for folders that share a name."""
    title = section.title.replace(folder.name, str(folder), 1)
    return replace(section, title=title, main=[[str(folder), *row[1:]] for row in section.main])


def read_section(folder: Path, *, picture_bytes: int) -> Section:
    """Read a result of any kind, known by the file its command writes last."""
    check_result(folder)
    if (folder / TABLE).is_file():
        return study_section(folder, picture_bytes=picture_bytes)
    return sweep_section(folder)


def render(sections: Sequence[Section], *, viewer: Viewer | None = None, lacking: Sequence[str] = ()) -> str:
    """Lay sections out; several are put side by side first."""
    templates = FileSystemLoader(Path(__file__).parent)
    environment = Environment(loader=templates, autoescape=True, undefined=StrictUndefined, trim_blocks=True)
    rows = [row for section in sections for row in section.main]
    headings = ("result", "target", "system", "slides", *metric_titles(), "its 95 %", "÷ ceiling")
    together = Table("All results", headings, rows, texts=4, note=TOGETHER_NOTE) if len(sections) > 1 else None
    title = sections[0].title if len(sections) == 1 else f"{len(sections)} results"
    return environment.get_template("page.html.jinja").render(
        title=title, sections=sections, together=together, viewer=viewer, lacking=lacking
    )

"""Reading a page back: its cells, its attributes, and whether its tags are closed."""

from dataclasses import dataclass, field
from html.parser import HTMLParser

VOID = {"meta", "img", "br", "hr", "input", "link"}


@dataclass
class Page(HTMLParser):
    """Tags, attributes, and the rows of each table by the heading above it."""

    tags: list[str] = field(default_factory=list)
    attributes: list[tuple[str, str]] = field(default_factory=list)
    tables: list[tuple[str, list[list[str]]]] = field(default_factory=list)
    titles: list[str] = field(default_factory=list)
    unclosed: list[str] = field(default_factory=list)
    heading: str = ""

    def __post_init__(self) -> None:
        super().__init__()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(name, value or "") for name, value in attrs]
        if tag not in VOID:
            self.unclosed.append(tag)
        if tag in {"h2", "h3", "summary"}:
            self.heading = ""
        if tag == "table":
            self.tables.append((self.heading, []))
        if tag == "tr":
            self.tables[-1][1].append([])
        if tag in {"td", "th"}:
            self.tables[-1][1][-1].append("")
        if tag == "title":
            self.titles.append("")

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(name, value or "") for name, value in attrs]

    def handle_endtag(self, tag: str) -> None:
        assert self.unclosed.pop() == tag

    def handle_data(self, data: str) -> None:
        within = self.unclosed[-1] if self.unclosed else ""
        if within in {"h2", "h3", "summary"}:
            self.heading += data
        elif within in {"td", "th"}:
            self.tables[-1][1][-1][-1] += data
        elif within == "title":
            self.titles[-1] += data

    def rows(self, heading: str) -> list[list[str]]:
        """Rows of all tables below a heading, those of headings first."""
        return [row for name, rows in self.tables if name == heading for row in rows]


def read_page(text: str) -> Page:
    """Parse a page; a tag that is not closed, or not in order, fails."""
    page = Page()
    page.feed(text)
    page.close()
    assert page.unclosed == []
    return page

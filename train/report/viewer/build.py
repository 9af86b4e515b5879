"""The viewer of a page: its HTML, the words in it, and a folder of words beside a page that would be too heavy.

In: the sources of all maps. Out: a `Viewer` for the template, and `PAGE-genes/` beside the page where it is needed.
"""

import hashlib
import json
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from magnet_core.errors import MagnetError
from magnet_core.files import naming, replacing_folder
from magnet_core.registry import look_up
from train.report.slide_maps import MapSource
from train.report.viewer.catalogue import Catalogue, Gene, catalogue, told_of

WORDS_BYTES = 40_000_000  # of genes inside a page; the rest lies in a folder beside it
SUFFIX = "-genes"
PARTS_OF_BOKEH = ["bokeh", "bokeh-widgets"]


@dataclass(frozen=True)
class Viewer:
    """What the template needs.

    library   Bokeh's scripts; `script` starts it, `places` are elements by the names that the template has for them
    facts     JSON that the callbacks read, `words` texts by name that they unpack
    told      the slides in words
    folder    of the genes that are not inside, how many they are, and how many there are in all
    """

    library: str
    script: str
    places: Mapping[str, str]
    facts: str
    words: Mapping[str, str]
    told: Sequence[str]
    folder: str
    num_beside: int
    num_genes: int


def build_viewer(sources: Sequence[tuple[str, MapSource]], page: Path, *, wanted: Sequence[str] = ()) -> Viewer:
    """Read the maps (title, source) and build their viewer; writes or replaces the folder beside the page.

    The genes `wanted`, by names or ids, come into the page before others; one that no map has is an error.
    """
    page.parent.mkdir(parents=True, exist_ok=True)
    folder = page.with_name(f"{page.stem}{SUFFIX}")
    with naming(page), tempfile.TemporaryDirectory(dir=page.parent, prefix=f".{page.stem}-") as spooled:
        told = catalogue(sources, Path(spooled) / "words")
        inside, beside = chosen(told.genes, wanted)
        key = hashlib.sha256(json.dumps(told.facts, sort_keys=True).encode()).hexdigest()[:16]
        words = told.words | dict(read_words(told, inside))
        write_beside(read_words(told, beside), folder, key, any_beside=bool(beside))
    for facts in told.facts:
        ours = facts["systems"].index(facts["ours"])
        pcc = [
            best_first(elsewhere if each[ours] is None else each[ours])
            for each, elsewhere in zip(facts["genes"]["pcc"], facts["genes"]["elsewhere"], strict=True)
        ]
        is_inside = [f"{facts['word']}-gene-{index}" in words for index in range(len(pcc))]
        called = zip(facts["genes"]["id"], facts["genes"]["name"], strict=True)
        is_wanted = [not {*wanted}.isdisjoint(each) for each in called]
        facts |= {
            "page": key,
            "folder": folder.name,
            "best": max(range(len(pcc)), key=lambda i: (is_inside[i], is_wanted[i], pcc[i])),
        }
    library, script, places = embedded(told)
    lines = [told_of(each) for each in told.facts]
    return Viewer(library, script, places, as_json(told.facts), words, lines, folder.name, len(beside), len(told.genes))


def chosen(genes: Sequence[Gene], wanted: Sequence[str] = ()) -> tuple[list[Gene], list[Gene]]:
    """Part genes into those inside the page, the wanted ones and the best of all slides, and the others."""
    known = dict.fromkeys(name for gene in genes for name in gene.called)
    for name in wanted:
        look_up(known, name, where="--genes")
    inside, beside, left = list[Gene](), list[Gene](), WORDS_BYTES
    for gene in sorted(genes, key=lambda each: (not set(each.called) & set(wanted), -each.pcc)):
        left -= gene.length
        (inside if left >= 0 else beside).append(gene)
    return inside, beside


def best_first(pcc: float | None) -> float:
    """A PCC to order by; one that is unknown comes last."""
    return -2.0 if pcc is None else pcc


def read_words(told: Catalogue, genes: Sequence[Gene]) -> Iterator[tuple[str, str]]:
    """Yield names and words of genes."""
    with told.spool.open("rb") as file:
        for gene in genes:
            file.seek(gene.start)
            yield gene.name, file.read(gene.length).decode("ascii")


def write_beside(words: Iterator[tuple[str, str]], folder: Path, key: str, *, any_beside: bool) -> None:
    """Write words as scripts into a folder, which replaces the one of a former page; without any, that is removed."""
    is_ours = folder.is_dir() and all(path.match("map-*-gene-*.js") for path in folder.iterdir())
    if any_beside and folder.exists() and not is_ours:
        raise MagnetError(
            folder,
            expected="no such folder, or genes of a former page",
            found="other files",
            remedy="name another --out",
        )
    if any_beside:
        with replacing_folder(folder) as partial:
            partial.mkdir()
            for name, word in words:
                (partial / f"{name}.js").write_text(f'(window.magnetWords ??= {{}})["{key}/{name}"] = "{word}"\n')
    elif is_ours:
        shutil.rmtree(folder)


def embedded(told: Catalogue) -> tuple[str, str, dict[str, str]]:
    """Bokeh's scripts, the one that starts it, and the element of each model."""
    from bokeh.document import Document  # slow to import, and not for a page without maps
    from bokeh.embed import components
    from bokeh.resources import Resources

    from train.report.viewer.panels import board

    made, document = board(told.facts), Document()
    for model in made.places.values():
        document.add_root(model)
    document.js_on_event("document_ready", made.show)
    script, places = components(made.places)
    return Resources(mode="inline", components=PARTS_OF_BOKEH).render_js(), script, places


def as_json(value: object) -> str:
    """JSON that no text in it can end the element of."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False).replace("<", "\\u003c")

"""What `extract backbones` prints: the table, or all that is stated of one backbone, with its sources.

In: backbone specs. Out: one line of text for each, in aligned columns, with the notes that the columns need; or a line
for each cell of one, under it the page where it was read.
"""

from collections.abc import Iterable

from tabulate import tabulate

from magnet_core.backbones.cards import card_of, cells
from magnet_core.backbones.spec import BackboneSpec

_HEADINGS = ("name", "trained at", "width", "input", "tokens", "pooled", "licence", "gate", "page")
_ALIGNMENT = ["right" if heading == "width" else "left" for heading in _HEADINGS]
_NOTES = """
trained at  µm/px or magnification; patches are cut at 0.25 µm/px
input       pixels a side that every patch is resized to; as cut: 112 (bins), 224 (spots), 512 (regions)
tokens      patch tokens of one patch, class and register tokens (+) not counted among them
licence     may extend to features and to what is trained on them: extract backbones NAME, with every source
gate        what the page asked for when it was read; whether weights are gated the hub says when they are fetched
Also: timm:NAME, any architecture of timm, and hf-hub:ORG/NAME, any timm model on the hub. See docs/backbones.md."""


def render_backbones(specs: Iterable[BackboneSpec]) -> str:
    """Return the table of `specs` in their order, with headings and notes."""
    rows = [_row(spec) for spec in specs]
    table = tabulate(rows, _HEADINGS, tablefmt="plain", disable_numparse=True, colalign=_ALIGNMENT)
    return f"{table}\n{_NOTES}"


def render_backbone(spec: BackboneSpec) -> str:
    """Return all that is stated of one backbone, each cell with the page where it was read."""
    about = [
        ("Page", spec.page),
        ("Architecture", spec.architecture),
        ("Width", "told by the built model" if spec.width is None else str(spec.width)),
        ("Tokens", _tokens(spec)),
    ]
    for title, cell in cells(spec).items():
        about.append((title, cell.text))
        if cell.source:
            about.append(("", cell.source))
    column = max(len(title) for title, _ in about) + 2
    return "\n".join([spec.pinned_name, *(f"{title:{column}}{text}" for title, text in about)])


def _row(spec: BackboneSpec) -> tuple[str, ...]:
    card = card_of(spec)
    return (
        spec.name,
        card.resolution.text,
        "" if spec.width is None else str(spec.width),
        "as cut" if spec.input_px is None else str(spec.input_px),
        _tokens(spec),
        spec.pooling,
        spec.licence,
        card.gate.text,
        spec.page,
    )


def _tokens(spec: BackboneSpec) -> str:
    return "feature map" if spec.patch_tokens is None else f"{spec.patch_tokens} (+{spec.prefix_tokens})"

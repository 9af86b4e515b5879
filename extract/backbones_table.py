"""The table that `extract backbones` prints.

In: backbone specs. Out: one line of text for each, in aligned columns, with the notes that the columns need.
"""

from collections.abc import Iterable

from tabulate import tabulate

from magnet_core.backbones.spec import BackboneSpec

_HEADINGS = ("name", "architecture", "width", "input", "tokens", "pooled", "licence", "gated", "page")
_ALIGNMENT = ["right" if heading == "width" else "left" for heading in _HEADINGS]
_NOTES = """
input   pixels a side that every patch is resized to; as cut: 112 (bins), 224 (spots), 512 (regions)
tokens  patch tokens of one patch, class and register tokens (+) not counted among them
gated   ask for access at the page, then set HF_TOKEN; or give a local file with --weights PATH
Also: timm:NAME, any architecture of timm, and hf-hub:ORG/NAME, any timm model on the hub. See docs/backbones.md."""


def render_backbones(specs: Iterable[BackboneSpec]) -> str:
    """Return the table of `specs` in their order, with headings and notes."""
    rows = [_row(spec) for spec in specs]
    table = tabulate(rows, _HEADINGS, tablefmt="plain", disable_numparse=True, colalign=_ALIGNMENT)
    return f"{table}\n{_NOTES}"


def _row(spec: BackboneSpec) -> tuple[str, ...]:
    tokens = "feature map" if spec.patch_tokens is None else f"{spec.patch_tokens} (+{spec.prefix_tokens})"
    return (
        spec.name,
        spec.architecture,
        "" if spec.width is None else str(spec.width),
        "as cut" if spec.input_px is None else str(spec.input_px),
        tokens,
        spec.pooling,
        spec.licence,
        "yes" if spec.gated else "no",
        spec.page,
    )

"""What a result was made with: the facts a reader asks first, the settings that differ from the defaults, and all.

In: the configuration a result carries, of this version or an older one. Out: terms with their texts, and blocks.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from magnet_core.settings import flat
from train.report.parts import Block, Code, Listing, Table
from train.settings.fit import as_recorded
from train.settings.protocols import PROTOCOLS
from train.studies.numbers import NOTHING
from train.studies.settings import StudyConfig

ENCODER = {"frozen": "cached features, no encoder trained"}
PANEL = {"mean": "mean count"}
LIBRARY = {"panel": "library size over the panel", "all": "library size over all genes", "none": "no library size"}


def facts(config: Mapping[str, Any], *, protocol: str = "") -> list[tuple[str, str]]:
    """Return what was learnt from, how genes were chosen, and how counts were normalised."""
    values = flat(config)

    def said(name: str) -> str:
        return shown(values[name]) if name in values else NOTHING

    mode, by = said("encoder.mode"), str(values.get("data.panel_by", "mean"))
    genes = f"{said('data.panel')}, highest in {PANEL.get(by, by)} on the training slides"
    if included := values.get("data.include"):
        genes += f"; {', '.join(map(str, included))} in any case"
    library = str(values.get("data.normalise.library", ""))
    counts = LIBRARY.get(library, library or NOTHING)
    if library != "none":
        counts += f", scaled to {said('data.normalise.scale')}"
    counts += ", log(1 + x)" if values.get("data.normalise.log") else ", no log"
    rows = [
        ("store", said("data.store")),
        ("features", f"{said('data.backbone')}: {ENCODER.get(mode, f'encoder fine-tuned ({mode})')}"),
        ("genes", genes),
        ("counts", counts),
    ]
    if protocol:
        rows.append(("protocol", PROTOCOLS[protocol].says if protocol in PROTOCOLS else protocol))
    if (seeds := int(values.get("seeds", 1))) > 1:
        first = int(values.get("seed", 0))
        return [*rows, ("seeds", f"{first} to {first + seeds - 1}; their mean prediction is tested")]
    return [*rows, ("seed", said("seed"))]


def settings(config: Mapping[str, Any]) -> list[Block]:
    """Return the settings of a fit or study that differ from the defaults, and all settings, both folded."""
    values, defaults = by_name(config), by_name(StudyConfig().plain())
    other = [
        [name, shown(value), shown(defaults[name]) if name in defaults else NOTHING]
        for name, value in values.items()
        if name not in defaults or value != defaults[name]
    ]
    note = "What is not named here is as by default." if other else "All settings are the defaults'."
    return [
        Table(
            "Settings that differ from the defaults",
            ("setting", "value", "default"),
            other,
            texts=3,
            note=note,
            folded=True,
        ),
        Code("All settings", "\n".join(f"{name} = {shown(value)}" for name, value in values.items()), folded=True),
    ]


def by_name(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return settings under the names by which users give them: those of a study's fit without its prefix."""
    values = {**config.get("fit", {}), **{key: value for key, value in config.items() if key != "fit"}}
    return flat(as_recorded(values))


def folds_table(folds: Mapping[str, Mapping[str, Sequence[str]]]) -> Table:
    """Which slides were learnt from and tested, fold by fold."""
    rows = [[index, ", ".join(sides["train"]), ", ".join(sides["test"])] for index, sides in folds.items()]
    return Table("Folds", ("fold", "training slides", "test slides"), rows, texts=3)


def versions(record: Mapping[str, Any]) -> Listing:
    """Versions of the packages."""
    return Listing("Versions", [" · ".join(f"{name} {text}" for name, text in record.get("versions", {}).items())])


def shown(value: Any) -> str:
    """A setting as a TOML file or `--set` has it."""
    return value if isinstance(value, str) and value else json.dumps(value, ensure_ascii=False)

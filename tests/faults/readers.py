"""What a reader sees of a store, a trained run and a table: facts, or one line of an error.

In: a folder. Out: facts as `tests.faults.facts` has them, in a child, as a damaged file may end its reader. Each reader
is the product's own: what `cache verify`, `train predict` and a study that is given again look at.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from cache.listing import store_faults
from cache.store import Store
from magnet_core.errors import MagnetError
from tests.faults.children import Child, Ended
from tests.faults.facts import differences, digest, facts_of_arrays
from tests.faults.setting import BACKBONE, Attacked
from train.learning.trained_run import load_run
from train.report.sweep import sweep_section

Reader = Callable[[Path], dict[str, str]]


@dataclass(frozen=True)
class Seen:
    """What a reader of a damaged folder saw: facts, None where it said that something is wrong."""

    facts: dict[str, str] | None
    ended: Ended


def read_store(folder: Path) -> dict[str, str]:
    """The sample table, and every array of every slide as it is read by the slide's id; checksums are compared."""
    store = Store(folder)
    _, faults = store_faults(store)
    if faults:
        raise MagnetError(folder, expected="a whole store", found=faults[0], remedy="see 'cache verify'")
    facts = {"samples": digest(json.dumps(store.samples(), sort_keys=True).encode())}
    for slide_id in store.slide_ids():
        with store.geometry(slide_id) as geometry:
            facts |= {f"{slide_id} geometry {name}": value for name, value in facts_of_arrays(geometry).items()}
        with store.features(slide_id, BACKBONE) as arrays:
            facts |= {f"{slide_id} features {name}": value for name, value in facts_of_arrays(arrays).items()}
    return facts


def read_run(folder: Path) -> dict[str, str]:
    """Weights, panel and settings of a trained run, as predictions use them."""
    run = load_run(folder)
    facts = {name: digest(value.numpy().tobytes()) for name, value in run.predictor.state_dict().items()}
    panel = json.dumps([run.panel.ids.tolist(), run.panel.names.tolist(), run.features_settings_digest])
    settings = json.dumps(run.config.plain(), sort_keys=True, default=str)
    own = str(run.predictor.own)
    return facts | {"panel": digest(panel.encode()), "settings": digest(settings.encode()), "own": own}


def read_sweep(folder: Path) -> dict[str, str]:
    """What the page shows of a sweep: its trials, the recipe of the best, and how the search went."""
    return {"section": digest(repr(sweep_section(folder)).encode())}


def seen_by(reader: Reader, folder: Path) -> Seen:
    """Let a reader look at a folder in a child."""
    told = folder.with_name(f"{folder.name}.facts")
    told.unlink(missing_ok=True)

    def work() -> None:
        try:
            told.write_text(json.dumps(reader(folder)))
        except MagnetError as error:
            raise SystemExit(f"error: {error}") from None

    ended = Child(work, folder.parent, folder.with_name(f"{folder.name}.log")).wait(60)
    return Seen(json.loads(told.read_text()) if ended.code == 0 else None, ended)


def seen_again(attacked: Attacked, folder: Path) -> Seen:
    """Give a finished command again, in a folder of which something was damaged; it reads what it has, and says so."""
    ended = attacked.start(folder).wait(120)
    warned = "failed" in ended.said
    return Seen(None if ended.code or warned else attacked.outcome(folder), ended)


def verdict(seen: Seen, truth: dict[str, str]) -> tuple[str | None, str]:
    """How a look at damage failed, if it did, and in which words: a crash, or other values without a word."""
    if seen.ended.is_foreign:
        return "traceback", f"exit code {seen.ended.code}: {seen.ended.last_line}"
    if seen.facts is None:
        return None, seen.ended.last_line
    different = differences(truth, seen.facts)
    return ("wrong", f"other {', '.join(different[:3])}") if different else (None, "")

"""Which epoch's weights are kept and why: what is recorded of a training, the line that says it, and a choice on disk.

In: the side that was learnt from, and how the training went; where it was trained again on all slides, how the first
training went, which chose the epoch.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from magnet_core.errors import MagnetError
from magnet_core.sealed import read_sealed, write_sealed

if TYPE_CHECKING:  # both bring torch, which the words below do without
    from train.data.training_side import TrainingSide
    from train.learning.progress import Progress

CHOOSING, CHOICE = "choosing", "choice.json"  # folder of a first training, and the file that it ends with


def read_choice(folder: Path) -> "Progress | None":
    """How the first training in a folder went; None where it is not finished."""
    path = folder / CHOICE
    if not path.exists():
        return None
    told = {"expected": "how a first training went", "remedy": "delete it, and give the command again to repeat it"}
    content = read_sealed(path, **told)
    from train.learning.progress import Progress

    try:
        return Progress(**content)
    except TypeError as error:
        raise MagnetError(path, found=str(error), **told) from error


def write_choice(folder: Path, done: "Progress") -> None:
    """Keep how a first training went, so that it is not repeated."""
    write_sealed(folder / CHOICE, done.state_dict())


def describe_training(side: "TrainingSide", done: "Progress", choice: "Progress | None" = None) -> dict[str, Any]:
    """Say how a training went, and how its epoch was chosen, by itself or by a first training."""
    chosen = choice or done
    blocks = {each.slide.slide_id: each.blocks for each in side.held_out if each.blocks is not None}
    return {
        "validation_slides": [each.slide.slide_id for each in side.held_out if each.blocks is None],
        "validation_blocks": {
            slide_id: {"side_um": each.side_um, "margin_um": each.margin_um, "centres_um": each.centres_um.tolist()}
            for slide_id, each in blocks.items()
        },
        "why_none": side.why_none,
        "validation_scores": chosen.scores,
        "kept_epoch": chosen.kept_epoch,
        "refitted": choice is not None,
        "losses": done.history,
    }


def kept_in_words(told: Mapping[str, Any]) -> str:
    """Say in one line which epoch was kept, of a training as `describe_training` or an older version told it."""
    slides, blocks = told.get("validation_slides", []), [*told.get("validation_blocks", {})]
    scores, kept = told.get("validation_scores", []), told.get("kept_epoch", 0)
    if not slides and not blocks:
        why = told.get("why_none", "")
        return "last epoch kept: nothing held out" + (f" ({why})" if why else "")
    judged_on = f"{'blocks of ' if blocks else ''}slide{'s' * (len(slides + blocks) > 1)} {', '.join(slides + blocks)}"
    best = scores[kept - 1] if 0 < kept <= len(scores) else None
    score = "no score" if best is None else f"best PCC per gene on {judged_on} ({best:.3f})"
    again = "; trained again on all slides" if told.get("refitted") else ""
    return f"epoch {kept} of {len(scores)} kept: {score}{again}"

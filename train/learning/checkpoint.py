"""What an unfinished training leaves on disk, so that it can resume and end as if it had never stopped.

checkpoint.pt       state of all that changes while training, torch's random states, and how far it is
best-N.safetensors  the weights of epoch N, which has the best score on what is held out so far; those that an older
                    checkpoint means stay until a newer one is written. Before, there was one `best.safetensors`
Both are written beside their place and then renamed, so that a file under its name is always whole.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from magnet_core.checksums import append_checksum, check_appended
from magnet_core.environment import known_fault
from magnet_core.errors import MagnetError
from magnet_core.files import replacing
from magnet_core.tensor_files import read_torch

CHECKPOINT, FORMER_BEST = "checkpoint.pt", "best.safetensors"
ANEW = "delete it, and give the command again; the training begins anew"


def write_checkpoint(
    folder: Path, parts: Mapping[str, Any], others: Mapping[str, Any], *, device: torch.device
) -> None:
    """Write the state of parts that have a `state_dict`, torch's random states on a device, and other values."""
    values = {name: part.state_dict() for name, part in parts.items()} | {**others, "random": _random_states(device)}
    with replacing(folder / CHECKPOINT) as partial:
        with partial.open("wb") as file:  # of a path, torch hides what the system says
            torch.save(values, file)
        append_checksum(partial)


def read_checkpoint(folder: Path) -> dict[str, Any] | None:
    """Read what `write_checkpoint` wrote; None where the file is missing, an error where it is damaged."""
    path = folder / CHECKPOINT
    if not path.exists():
        return None
    check_appended(path, expected="a checkpoint, whole", remedy=ANEW)
    values = read_torch(path, expected="a checkpoint, whole", remedy=ANEW, intact=True)
    if not isinstance(values, dict):
        raise MagnetError(path, expected="a checkpoint", found=type(values).__name__, remedy=ANEW)
    return values


def best_path(folder: Path, epoch: int) -> Path:
    """Where the weights of an epoch lie that scored best."""
    return folder / f"best-{epoch}.safetensors"


def forget_best(folder: Path, *, but: int) -> None:
    """Remove the weights of epochs that scored best before epoch `but` did."""
    for path in folder.glob("best*.safetensors"):
        if path != best_path(folder, but):
            path.unlink()


def go_on(folder: Path, parts: Mapping[str, Any], values: Mapping[str, Any], *, device: torch.device) -> None:
    """Restore parts and torch's random states from the folder's checkpoint."""
    try:
        for name, part in parts.items():
            part.load_state_dict(values[name])
        _set_random_states(values["random"], device)
    except (RuntimeError, LookupError, ValueError, TypeError, AttributeError) as error:
        if known_fault(error):
            raise
        # another version of the program has other parts
        found = f"{type(error).__name__}: {str(error).partition(chr(10))[0]}"
        raise MagnetError(
            folder / CHECKPOINT, expected="a checkpoint of this training", found=found, remedy=ANEW
        ) from error


def forget(folder: Path) -> None:
    """Remove what an unfinished training left."""
    for names in (f"{CHECKPOINT}*", "best*.safetensors*"):
        for path in folder.glob(names):  # with the temporary files of a killed process
            path.unlink()


def _random_states(device: torch.device) -> dict[str, Any]:
    """States of the generators that training draws from: the CPU's, and the device's own."""
    return {"cpu": torch.get_rng_state(), "cuda": torch.cuda.get_rng_state(device) if device.type == "cuda" else None}


def _set_random_states(states: dict[str, Any], device: torch.device) -> None:
    torch.set_rng_state(states["cpu"])
    if states["cuda"] is not None and device.type == "cuda":
        torch.cuda.set_rng_state(states["cuda"], device)

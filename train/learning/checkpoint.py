"""What an unfinished training leaves on disk, so that it can resume and end as if it had never stopped.

checkpoint.pt     state of all that changes while training, torch's random states, and how far it is
best.safetensors  the weights with the best score on what is held out so far
Both are written beside their place and then renamed, so that a file under its name is always whole.
"""

import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from magnet_core.errors import MagnetError
from magnet_core.files import replacing

CHECKPOINT, BEST = "checkpoint.pt", "best.safetensors"


def write_checkpoint(
    folder: Path, parts: Mapping[str, Any], others: Mapping[str, Any], *, device: torch.device
) -> None:
    """Write the state of parts that have a `state_dict`, torch's random states on a device, and other values."""
    values = {name: part.state_dict() for name, part in parts.items()} | {**others, "random": _random_states(device)}
    with replacing(folder / CHECKPOINT) as partial:
        torch.save(values, partial)


def read_checkpoint(folder: Path) -> dict[str, Any] | None:
    """Read what `write_checkpoint` wrote; None where the file is missing, an error where it is damaged."""
    path = folder / CHECKPOINT
    if not path.exists():
        return None
    try:
        with zipfile.ZipFile(path) as parts:  # torch's own reader would accept changed bytes as values
            damaged = parts.testzip()
        if damaged is not None:
            raise zipfile.BadZipFile(f"{damaged} has changed since it was written")
        result: dict[str, Any] | None = torch.load(path, map_location="cpu", weights_only=True)
        return result
    except (zipfile.BadZipFile, RuntimeError) as error:
        raise _unusable(path, error, expected="a checkpoint, whole") from error


def go_on(folder: Path, parts: Mapping[str, Any], values: Mapping[str, Any], *, device: torch.device) -> None:
    """Restore parts and torch's random states from the folder's checkpoint."""
    try:
        for name, part in parts.items():
            part.load_state_dict(values[name])
        _set_random_states(values["random"], device)
    except torch.OutOfMemoryError:
        raise
    except (RuntimeError, KeyError, ValueError, TypeError) as error:  # another version of the program has other parts
        raise _unusable(folder / CHECKPOINT, error, expected="a checkpoint of this training") from error


def forget(folder: Path) -> None:
    """Remove what an unfinished training left."""
    for name in (CHECKPOINT, BEST):
        for path in folder.glob(f"{name}*"):  # with the temporary files of a killed process
            path.unlink()


def _unusable(path: Path, error: Exception, *, expected: str) -> MagnetError:
    found = f"{type(error).__name__}: {str(error).partition(chr(10))[0]}"
    return MagnetError(
        path, expected=expected, found=found, remedy="delete it, and give the command again; the training begins anew"
    )


def _random_states(device: torch.device) -> dict[str, Any]:
    """States of the generators that training draws from: the CPU's, and the device's own."""
    return {"cpu": torch.get_rng_state(), "cuda": torch.cuda.get_rng_state(device) if device.type == "cuda" else None}


def _set_random_states(states: dict[str, Any], device: torch.device) -> None:
    torch.set_rng_state(states["cpu"])
    if states["cuda"] is not None and device.type == "cuda":
        torch.cuda.set_rng_state(states["cuda"], device)

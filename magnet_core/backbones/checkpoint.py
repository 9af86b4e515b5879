"""Read a checkpoint file and load it into a timm model, whole or not at all.

In: safetensors, or a torch file read weights-only: a state dict, or a dict that holds one under `state_dict`, `model`
or `teacher`, whose names may all carry one prefix (`module.`, `backbone.`, …); the names may be timm's, or those of
a DINOv2 model of transformers. Tensors the encoder has no use for (a classifier, a projection head) are left out;
a checkpoint of more blocks than the architecture has is another architecture's.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from magnet_core.backbones.transformers_layout import is_transformers_layout, to_timm_layout
from magnet_core.errors import MagnetError
from magnet_core.tensor_files import read_safetensors, read_torch

State = dict[str, Tensor]

_WRAPPERS = ("state_dict", "model", "teacher", "state_dict_ema", "model_ema")
_REMEDY = "export the state dict with safetensors.torch.save_file"


def load_weights(model: nn.Module, path: Path, *, name: str) -> None:
    """Load a checkpoint file into `model`; the file must hold every parameter and buffer in its shape.

    `name` is the backbone's, for messages. Raises MagnetError when the file cannot be read, holds more than one set
    of weights, or belongs to another architecture; the model is then as it was.
    """
    own_state = model.state_dict()
    state = read_weights(path, name=name, positions=_positions(own_state))
    prefix = _common_prefix(state, own_state, path=path)
    state = {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}
    missing = sorted(own_state.keys() - state.keys())
    misshapen = sorted(key for key in own_state.keys() & state.keys() if own_state[key].shape != state[key].shape)
    beyond = _blocks_beyond(state, own_state)
    if missing or misshapen or beyond:
        example = (missing + misshapen + beyond)[0]
        too_deep = f" and {len(beyond)} of blocks it does not have" if beyond else ""
        raise MagnetError(
            path,
            expected=f"all {len(own_state)} tensors of '{name}'",
            found=f"{len(missing)} missing and {len(misshapen)} of another shape{too_deep}, such as '{example}'",
            remedy="give the checkpoint of this architecture, or another --backbone",
        )
    try:
        model.load_state_dict({key: state[key] for key in own_state})
    except RuntimeError as error:  # tensors that no parameter takes, such as sparse ones
        raise _unreadable(path, name, found="tensors of another kind") from error


def read_weights(path: Path, *, name: str, positions: int | None = None) -> State:
    """Return the tensors of a checkpoint file by name, unwrapped, in timm's layout.

    `positions` is how many position embeddings the model has, see `to_timm_layout`.
    Raises MagnetError when the file cannot be read without running code from it, or holds more than one state dict.
    """
    read = read_safetensors if path.suffix == ".safetensors" else read_torch
    content: Any = read(path, expected=_expected(name), remedy=_REMEDY)
    state = _unwrapped(content, path=path, name=name)
    if not is_transformers_layout(state):
        return state
    try:
        return to_timm_layout(state, path=path, positions=positions)
    except (RuntimeError, IndexError) as error:
        raise _unreadable(path, name, found="tensors of a DINOv2 model that do not fit together") from error


def _positions(own_state: Mapping[str, Tensor]) -> int | None:
    embedding = own_state.get("pos_embed")
    return None if embedding is None or embedding.ndim != 3 else embedding.shape[1]


def _unwrapped(content: Any, *, path: Path, name: str) -> State:
    """Return the one state dict of what a file held."""
    tensors = _tensors(content)
    if tensors:
        return tensors
    inner = {key: _tensors(content[key]) for key in _WRAPPERS if isinstance(content, Mapping) and key in content}
    state_dicts = {key: state for key, state in inner.items() if state}
    if len(state_dicts) > 1:
        raise _unreadable(path, name, found=f"several sets of weights: {', '.join(state_dicts)}")
    if not state_dicts:
        raise _unreadable(path, name, found="no tensors under names, nor under " + ", ".join(_WRAPPERS))
    return next(iter(state_dicts.values()))


def _tensors(content: Any) -> State:
    """Return the tensors that a mapping holds, by name; return an empty dict for anything else."""
    if not isinstance(content, Mapping):
        return {}
    return {key: value for key, value in content.items() if isinstance(key, str) and isinstance(value, Tensor)}


def _common_prefix(state: State, own_state: Mapping[str, Tensor], *, path: Path) -> str:
    """Return the one prefix under which the file has all names of the model; empty where there is no such prefix."""
    probe = max(own_state, key=len)
    ends = (key.removesuffix(probe) for key in state if key.endswith(probe))
    whole = sorted(
        prefix for prefix in ends if prefix[-1:] in {"", "."} and all(prefix + key in state for key in own_state)
    )
    if len(whole) > 1:
        raise MagnetError(
            path,
            expected="one set of weights of this architecture",
            found=f"several, under the prefixes {', '.join(repr(prefix) for prefix in whole)}",
            remedy="save the one to use in a file of its own, with safetensors.torch.save_file",
        )
    return whole[0] if whole else ""


def _blocks_beyond(state: State, own_state: Mapping[str, Tensor]) -> list[str]:
    """Return names in numbered blocks (`blocks.24.…`, `layer3.6.…`) that follow those the architecture has."""
    last: dict[str, int] = {}  # of each row of blocks, such as `blocks` or `stages.2.blocks`
    for key in own_state:
        for row, index in _block_numbers(key):
            last[row] = max(index, last.get(row, index))
    surplus = sorted(state.keys() - own_state.keys())
    return [key for key in surplus if any(index > last.get(row, index) for row, index in _block_numbers(key))]


def _block_numbers(key: str) -> list[tuple[str, int]]:
    """Return (`stages`, 2), (`stages.2.blocks`, 9) for `stages.2.blocks.9.weight`."""
    return [(key[: match.start()], int(match.group(1))) for match in re.finditer(r"\.(\d+)(?=\.)", key)]


def _unreadable(path: Path, name: str, *, found: str) -> MagnetError:
    return MagnetError(path, expected=_expected(name), found=found, remedy=_REMEDY)


def _expected(name: str) -> str:
    return f"a safetensors file or a torch state dict with weights of '{name}'"

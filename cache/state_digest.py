"""The name of a model's weights: SHA-256 over its tensors, in the headers of feature files and of runs.

In: named tensors. Out: a hexadecimal string. Apart from `cache.fingerprint`, as torch takes seconds to import.
"""

import hashlib
from collections.abc import Mapping

import numpy as np
import torch

from cache.canonical import canonical_json


def state_sha256(state: Mapping[str, np.ndarray | torch.Tensor]) -> str:
    """SHA-256 of named tensors: names, dtypes, shapes and bytes, whatever their order, device or library."""
    hasher = hashlib.sha256()
    for name in sorted(state):
        tensor = state[name]
        entry = [name, str(tensor.dtype).removeprefix("torch."), list(tensor.shape)]
        hasher.update(canonical_json(entry).encode() + b"\n")
        hasher.update(_raw_bytes(tensor))
    return hasher.hexdigest()


def _raw_bytes(tensor: np.ndarray | torch.Tensor) -> memoryview:
    """All bytes of a tensor in C order; torch's view covers dtypes that NumPy lacks (bfloat16)."""
    if isinstance(tensor, torch.Tensor):
        flat = tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy()
    else:
        flat = np.ascontiguousarray(tensor).reshape(-1).view(np.uint8)
    return flat.data

"""Names for content: what a cached file was computed from, as short digests. Serves design section "The store".

In: settings, files, model weights. Out: hexadecimal strings that change when the cached bytes could change.
"""

import hashlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
import xxhash

from cache.canonical import canonical_json
from magnet_core.errors import MagnetError

# Settings that say how fast or where something is computed, never what: the only keys left out of a digest.
OUTPUT_NEUTRAL = frozenset(
    {
        "batch_size", "cache_mb", "device", "engine", "log_dir", "num_workers", "out", "pin_memory",
        "prefetch", "progress", "queue_depth", "store", "threads", "verbose", "workers",
    }
)  # fmt: skip

SAMPLE_BYTES = 64 * 1024
NUM_SAMPLES = 64


def digest(settings: Mapping[str, object], *, length: int = 12) -> str:
    """Hexadecimal digest over all settings except those named in `OUTPUT_NEUTRAL`, at every depth."""
    return hashlib.sha256(canonical_json(_without_neutral(settings)).encode()).hexdigest()[:length]


def file_fingerprint(path: str | Path) -> str:
    """Size and xxh3_128 of a file: of all its bytes up to 4 MiB, of 64 evenly spaced samples of 64 KiB beyond.

    The first sample is the head and the last the tail, so a 20 GB slide costs 64 short reads. The trade-off: an edit
    that keeps the size and falls between two samples goes unseen. Slides are replaced or re-exported, which changes
    headers, offsets and compressed lengths; they are not patched in place.
    """
    path = Path(path)
    if not path.is_file():
        raise MagnetError(path, expected="a file", found="none", remedy="check the path in samples.csv")
    size = path.stat().st_size
    hasher = xxhash.xxh3_128()
    with path.open("rb") as stream:
        if size <= NUM_SAMPLES * SAMPLE_BYTES:
            hasher.update(stream.read())
        else:
            for sample in range(NUM_SAMPLES):
                stream.seek((size - SAMPLE_BYTES) * sample // (NUM_SAMPLES - 1))
                hasher.update(stream.read(SAMPLE_BYTES))
    return f"{size}-{hasher.hexdigest()}"


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


def _without_neutral(value: object) -> object:
    if isinstance(value, Mapping):
        return {key: _without_neutral(item) for key, item in value.items() if key not in OUTPUT_NEUTRAL}
    if isinstance(value, list | tuple):
        return [_without_neutral(item) for item in value]
    return value

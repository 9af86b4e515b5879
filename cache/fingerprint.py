"""Names for content: what a cached file was computed from, as short digests. Serves design section "The store".

In: settings, files. Out: hexadecimal strings that change when the cached bytes could change.
"""

import hashlib
from collections.abc import Collection, Mapping
from pathlib import Path

import xxhash

from cache.canonical import canonical_json
from magnet_core.errors import MagnetError
from magnet_core.settings import without

SAMPLE_BYTES = 64 * 1024
NUM_SAMPLES = 64


def digest(values: Mapping[str, object], *, neutral: Collection[str] = (), length: int = 12) -> str:
    """Hexadecimal digest over all values but those that `neutral` names, each by its dotted name such as data.store."""
    return hashlib.sha256(canonical_json(without(values, neutral)).encode()).hexdigest()[:length]


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

"""JSON files that tell when they are damaged: read within bounds, and written with a checksum of what they say.

In: a path, plain values. Out: the values, or one line that says what is wrong with the file. The key `checksum` stands
first in a sealed file: xxh3_64 of its other content as JSON of one spelling. Files of before have none and are read as
they are; so is a file that a person wrote, or changed and took the checksum out of.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import xxhash

from magnet_core.errors import MagnetError
from magnet_core.files import plain_json, write_text

SEAL = "checksum"
MOST_BYTES = 256 << 20  # no file of ours comes near; a parser takes some ten times as much memory
_FORM = "xxh3_64:"


def read_json(path: Path, *, expected: str, remedy: str) -> Any:
    """Parse a JSON file that may hold anything; what is no JSON, or too long or too deep to parse, is one line."""
    try:
        size = path.stat().st_size
        if size > MOST_BYTES:
            raise MagnetError(path, expected=f"{expected} of at most {MOST_BYTES >> 20} MiB", found=f"{size} bytes",
                              remedy=remedy)  # fmt: skip
        return json.loads(path.read_bytes())
    except RecursionError as error:
        raise MagnetError(path, expected=expected, found="lists too deep to read", remedy=remedy) from error
    except (OSError, ValueError) as error:  # of JSON, of the text's encoding, of a number of too many digits
        found = error.strerror or str(error) if isinstance(error, OSError) else str(error)
        raise MagnetError(path, expected=expected, found=found, remedy=remedy) from error


def write_sealed(path: Path, content: Mapping[str, Any]) -> None:
    """Write a JSON object with its checksum, whole or not at all; NaN becomes null."""
    plain = plain_json(content)
    sealed = {SEAL: checksum(plain), **plain}
    write_text(path, json.dumps(sealed, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def read_sealed(path: Path, *, expected: str, remedy: str) -> dict[str, Any]:
    """Read a JSON object without its checksum; one that does not match it is an error.

    A damaged checksum is not mistaken for none: no other value at the top begins as it does.
    """
    content = read_json(path, expected=expected, remedy=remedy)
    if not isinstance(content, dict):
        raise MagnetError(path, expected=f"{expected}, a JSON object", found=type(content).__name__, remedy=remedy)
    seal = content.pop(SEAL, None)
    is_lost = seal is None and any(isinstance(value, str) and value.startswith(_FORM) for value in content.values())
    if is_lost or (seal is not None and seal != checksum(content)):
        raise MagnetError(
            path,
            expected=f"{expected} as it was written",
            found=f"content that does not match its {SEAL}",
            remedy=f'{remedy}; if the change is yours, take the line "{SEAL}" out',
        )
    return content


def checksum(content: Mapping[str, Any]) -> str:
    """Checksum of plain content: the same after it was written and read, whatever its blanks and the order of keys."""
    text = json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return f"{_FORM}{xxhash.xxh3_64_hexdigest(text.encode())}"

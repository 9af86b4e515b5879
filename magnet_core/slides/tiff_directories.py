"""A TIFF's directories, looked at before any library allocates by what they claim.

In: a TIFF or BigTIFF file. Out: nothing, or one line that says which claim no file of this size can keep. Only sizes
are judged here: what else is wrong with a file is found by the library that reads it.

Format: TIFF 6.0, section 2, and BigTIFF. A directory lists tags of 12 bytes (20 in BigTIFF): number, type, count and
value, or where the values stand. Hamamatsu's NDPI is a TIFF whose directories stand at numbers of 8 bytes; the upper
halves of its values follow upon a directory, so that files above 4 GB have places for theirs.
"""

from collections.abc import Iterator
from math import prod
from pathlib import Path
from typing import BinaryIO

import numpy as np

from magnet_core.errors import MagnetError

MAX_DIRECTORIES = 10_000  # a slide has some ten; a stack of more images is not a slide
MAX_DEPTH = 8  # of directories below directories; levels of a pyramid lie side by side
MAX_TAGS = 4_096  # of a directory
MAX_VALUES = 2**22  # of a tag: tiles of a slide of 500,000 × 500,000 pixels fit
MAX_TEXT_BYTES = 64 << 20  # of a description: OME-XML of many thousand images fits
TYPE_BYTES = np.array([1, 1, 1, 2, 4, 8, 1, 1, 2, 4, 8, 4, 8, 4, 1, 1, 8, 8, 8])  # by TIFF's number of a type
MAX_TILE_PX = 2**28  # OpenSlide and libtiff hold a tile as a whole, with 4 bytes a pixel
IMAGE_DESCRIPTION, SUB_IFDS, TILE_SIDES = 270, 330, (322, 323)
NDPI_RESTARTS = (65426, 65432)  # where parts of an image's one JPEG begin: millions of them


def check_directories(path: Path, *, ndpi: bool = False) -> None:
    """Raise `MagnetError` where a tag claims more than the file can hold, or where there are too many directories."""
    file_bytes = path.stat().st_size
    with path.open("rb") as file:
        for number, tags in enumerate(_directories(path, file, file_bytes, ndpi=ndpi)):
            if number == MAX_DIRECTORIES:
                raise _absurd(path, f"at most {MAX_DIRECTORIES:,} images in a file", "more")
            _check_tags(path, tags, file_bytes)
            sides = [
                _values(file, tag, tags.dtype["value"], file_bytes)[:1] for tag in tags if tag["tag"] in TILE_SIDES
            ]
            if prod(side for first in sides for side in first) > MAX_TILE_PX:
                raise _absurd(
                    path,
                    f"tiles of at most {MAX_TILE_PX:,} pixels",
                    " × ".join(str(side) for first in sides for side in first),
                )


def _check_tags(path: Path, tags: np.ndarray, file_bytes: int) -> None:
    if len(tags) > MAX_TAGS:
        raise _absurd(path, f"at most {MAX_TAGS:,} tags of an image", f"{len(tags):,}")
    for tag in tags:
        value_bytes = int(TYPE_BYTES[tag["type"]]) if tag["type"] < len(TYPE_BYTES) else 1
        count = int(tag["count"])
        text_bytes = MAX_TEXT_BYTES if tag["tag"] == IMAGE_DESCRIPTION else file_bytes
        is_long = value_bytes > 1 and count > MAX_VALUES and tag["tag"] not in NDPI_RESTARTS
        if count * value_bytes > min(file_bytes, text_bytes) or is_long:
            found = f"tag {tag['tag']} with {count:,} values of {value_bytes} bytes"
            raise _absurd(
                path, f"tags that fit into its {file_bytes:,} bytes, and no longer lists than slides have", found
            )


def _directories(path: Path, file: BinaryIO, file_bytes: int, *, ndpi: bool) -> Iterator[np.ndarray]:
    """Yield the tags of each directory that can be reached, those below others too, each once.

    One that follows upon itself, or lies below itself, is an error: readers go round for ever.
    """
    header = file.read(16)
    order = "<" if header[:2] == b"II" else ">"
    is_big = b"+" in header[2:4]
    number, place = (np.dtype(f"{order}u{8 if wide else 4}") for wide in (is_big, is_big or ndpi))
    count = np.dtype(f"{order}u{8 if is_big else 2}")
    tag = np.dtype([("tag", f"{order}u2"), ("type", f"{order}u2"), ("count", number), ("value", number)])
    waiting: list[tuple[int, tuple[int, ...]]]  # where a directory stands, and those above it
    waiting = [(offset, ()) for offset in _numbers(header[8:16] if is_big else header[4 : 4 + place.itemsize], place)]
    seen, chain = set[int](), set[int]()
    while waiting:
        offset, above = waiting.pop()
        if offset in above or len(above) > MAX_DEPTH or (not above and offset in chain):
            raise _absurd(path, "images that do not follow upon themselves", f"such a one at byte {offset:,}")
        if not above:
            chain.add(offset)
        if offset in seen or not 8 <= offset <= file_bytes - count.itemsize:
            continue
        seen.add(offset)
        file.seek(offset)
        num_tags = min(_numbers(file.read(count.itemsize), count)[0], MAX_TAGS + 1)
        content = file.read(num_tags * tag.itemsize)
        tags = np.frombuffer(content[: len(content) // tag.itemsize * tag.itemsize], tag)
        waiting += [(following, above) for following in _numbers(file.read(place.itemsize), place)]
        yield tags
        for listing in tags[tags["tag"] == SUB_IFDS]:
            waiting += [(below, (*above, offset)) for below in _values(file, listing, number, file_bytes)]


def _values(file: BinaryIO, tag: np.void, number: np.dtype[np.unsignedinteger], file_bytes: int) -> list[int]:
    """Whole numbers that a tag lists: within the tag where they fit, else where it points to, if the file has them."""
    each = np.dtype(f"{number.byteorder}u{TYPE_BYTES[min(tag['type'], len(TYPE_BYTES) - 1)]}")
    num_bytes = int(tag["count"]) * each.itemsize
    if num_bytes <= number.itemsize:
        return _numbers(np.array(tag["value"], number).tobytes()[:num_bytes], each)
    if int(tag["value"]) + num_bytes > file_bytes:
        return []
    file.seek(int(tag["value"]))
    return _numbers(file.read(num_bytes), each)


def _numbers(content: bytes, number: np.dtype[np.unsignedinteger]) -> list[int]:
    """As many whole numbers as there are bytes for."""
    whole = content[: len(content) // number.itemsize * number.itemsize]
    return [int(value) for value in np.frombuffer(whole, number)]


def _absurd(path: Path, expected: str, found: str) -> MagnetError:
    remedy = "the file is cut short, damaged or made to do harm: copy it again from its source"
    return MagnetError(path, expected=f"a TIFF with {expected}", found=found, remedy=remedy)

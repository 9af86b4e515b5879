"""The size that a compressed tile states of itself, read from its header before anything is decoded.

In: the bytes of a tile or strip, compressed as an image of its own. Out: (width, height, channels), or an error. A
decoder allocates by this size, not by that of the tile: 447 bytes of JPEG 2000 can ask for gigabytes.

Formats: JPEG 2000 (ISO 15444-1, annexes A and I), PNG, WebP (RFC 9649), JPEG XL (ISO 18181-1, annex D: SizeHeader).
Other codecs of images have headers that are not read here, and are refused: `SIZED` lists those that are.
"""

import struct
from collections.abc import Callable, Iterator

UNKNOWN_CHANNELS = 4  # of formats that have no more, or whose header does not state them first
_J2K, _JXL = b"\xff\x4f\xff\x51", b"\xff\x0a"
_JXL_RATIOS = ((1, 1), (12, 10), (4, 3), (3, 2), (16, 9), (5, 4), (2, 1))
_BOXED = b"\0\0\0\x0c"  # JP2 and boxed JPEG XL begin with a box of 12 bytes


def coded_size(compression: int, encoded: bytes) -> tuple[int, int, int]:
    """Width, height and channels by the header of an image; ValueError where there is no such header."""
    try:
        return SIZED[compression](encoded)
    except (struct.error, IndexError) as error:
        raise ValueError("a tile or strip ends within its header") from error


def _jpeg2000(encoded: bytes) -> tuple[int, int, int]:
    stream = _first_box(encoded, b"jp2c") if encoded.startswith(_BOXED) else encoded
    if not stream.startswith(_J2K):
        raise ValueError("a tile or strip is no JPEG 2000")
    x_end, y_end, x, y = struct.unpack_from(">IIII", stream, 8)
    channels: int = struct.unpack_from(">H", stream, 40)[0]
    return x_end - x, y_end - y, channels


def _png(encoded: bytes) -> tuple[int, int, int]:
    if not encoded.startswith(b"\x89PNG\r\n\x1a\n") or encoded[12:16] != b"IHDR":
        raise ValueError("a tile or strip is no PNG")
    width, height = struct.unpack_from(">II", encoded, 16)
    return width, height, UNKNOWN_CHANNELS


def _webp(encoded: bytes) -> tuple[int, int, int]:
    kind = encoded[12:16]
    if encoded[:4] != b"RIFF" or encoded[8:12] != b"WEBP" or kind not in (b"VP8 ", b"VP8L", b"VP8X"):
        raise ValueError("a tile or strip is no WebP")
    if kind == b"VP8X":
        width, height = (int.from_bytes(encoded[at : at + 3], "little") + 1 for at in (24, 27))
    elif kind == b"VP8L":
        bits = struct.unpack_from("<I", encoded, 21)[0]
        width, height = (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    else:
        width, height = (side & 0x3FFF for side in struct.unpack_from("<HH", encoded, 26))
    return width, height, UNKNOWN_CHANNELS


def _jpegxl(encoded: bytes) -> tuple[int, int, int]:
    stream = _first_box(encoded, b"jxlc") if encoded.startswith(_BOXED) else encoded
    if not stream.startswith(_JXL):
        raise ValueError("a tile or strip is no JPEG XL of a known kind")
    bits, at = int.from_bytes(stream[2:16], "little"), 0

    def take(count: int) -> int:
        nonlocal at
        value, at = bits >> at & ((1 << count) - 1), at + count
        return value

    is_small = take(1)

    def side() -> int:
        return (take(5) + 1) * 8 if is_small else take((9, 13, 18, 30)[take(2)]) + 1

    height, ratio = side(), take(3)
    if ratio == 0:
        return side(), height, UNKNOWN_CHANNELS
    numerator, denominator = _JXL_RATIOS[ratio - 1]
    return height * numerator // denominator, height, UNKNOWN_CHANNELS


def _first_box(encoded: bytes, name: bytes) -> bytes:
    """Content of the first box of this name; a box lists its length and name, then holds its content."""
    for kind, start in _boxes(encoded):
        if kind == name:
            return encoded[start : start + 64]
    raise ValueError("a tile or strip holds no image")


def _boxes(encoded: bytes) -> Iterator[tuple[bytes, int]]:
    at = 0
    while at < len(encoded):
        length, kind = struct.unpack_from(">I4s", encoded, at)
        long = length == 1
        yield kind, at + (16 if long else 8)
        length = struct.unpack_from(">Q", encoded, at + 8)[0] if long else length
        if length < 8:  # 0 is the last box, and less holds no box
            return
        at += length


SIZED: dict[int, Callable[[bytes], tuple[int, int, int]]] = {
    **dict.fromkeys((33003, 33004, 33005, 34712), _jpeg2000),
    **{34933: _png, 50001: _webp},
    **dict.fromkeys((50002, 52546), _jpegxl),
}

"""Damaged copies of a file, endless and the same for the same seed: bits, bytes, numbers, cuts, splices.

In: a seed and a whole file. Out: copies that differ from it. Serves tests of parsers: none may raise what is not ours.
"""

import random
from collections.abc import Callable, Iterator

NUMBERS = (0, 1, 0x7F, 0x80, 0xFF, 0x7FFF, 0xFFFF, 2**31 - 1, 2**31, 2**32 - 1, 2**40, 2**63 - 1, 2**64 - 1)
WIDTHS = (1, 2, 4, 8)
WORDS = [
    b"null", b"true", b"{}", b"[]", b'""', b"-1", b"0", b"1e309", b"NaN", b"Infinity", b"9" * 400, b"[" * 3000, b"\0",
    b"\xff\xfe", "\u202e".encode(), b"\r\n", b",", b"\t", b'"', b"~nouser", b"../", b"0x", b"1_0", b"'", b"=", b";",
]  # fmt: skip
MOST_AT_ONCE = 4  # changes of one copy; a parser gives up early on a file that is wrong all over
HEAD_BYTES = 512  # where most formats keep what they claim


def mutations(seed: int, whole: bytes) -> Iterator[bytes]:
    """Yield damaged copies of a file without end; the same seed and file give the same ones."""
    rng = random.Random(seed)
    while True:
        copy = bytearray(whole)
        for _ in range(rng.randint(1, MOST_AT_ONCE)):
            rng.choice(CHANGES)(rng, copy)
        if copy != whole:
            yield bytes(copy)


def _place(rng: random.Random, copy: bytearray) -> int:
    """Some byte of the copy: every second time one of the head or, as in TIFF, of the end."""
    end = max(1, len(copy))
    kind = rng.randrange(4)
    if kind == 0:
        return rng.randrange(min(HEAD_BYTES, end))
    if kind == 1:
        return rng.randrange(max(0, end - HEAD_BYTES), end)
    return rng.randrange(end)


def _flip_bit(rng: random.Random, copy: bytearray) -> None:
    if copy:
        copy[_place(rng, copy)] ^= 1 << rng.randrange(8)


def _set_byte(rng: random.Random, copy: bytearray) -> None:
    if copy:
        copy[_place(rng, copy)] = rng.randrange(256)


def _set_number(rng: random.Random, copy: bytearray) -> None:
    """Put a number at the edge of what its width holds, in either order of bytes."""
    width, at = rng.choice(WIDTHS), _place(rng, copy)
    number = rng.choice(NUMBERS) & (256**width - 1)
    copy[at : at + width] = number.to_bytes(width, rng.choice(("little", "big")))


def _set_word(rng: random.Random, copy: bytearray) -> None:
    """Put what parsers of text stumble over in the place of, or before, what is there."""
    at, word = _place(rng, copy), rng.choice(WORDS)
    copy[at : at + rng.choice((0, len(word)))] = word


def _cut_end(rng: random.Random, copy: bytearray) -> None:
    del copy[_place(rng, copy) :]


def _cut_out(rng: random.Random, copy: bytearray) -> None:
    at = _place(rng, copy)
    del copy[at : at + rng.randint(1, 64)]


def _splice(rng: random.Random, copy: bytearray) -> None:
    """Copy a piece of the file over, or in between, another."""
    source, target, length = _place(rng, copy), _place(rng, copy), rng.randint(1, 64)
    piece = copy[source : source + length]
    copy[target : target + (len(piece) if rng.random() < 0.5 else 0)] = piece


def _repeat(rng: random.Random, copy: bytearray) -> None:
    at, length = _place(rng, copy), rng.randint(1, 16)
    copy[at:at] = copy[at : at + length] * rng.randint(1, 64)


CHANGES: tuple[Callable[[random.Random, bytearray], None], ...] = (
    _flip_bit,
    _flip_bit,
    _set_byte,
    _set_number,
    _set_number,
    _set_word,
    _cut_end,
    _cut_out,
    _splice,
    _repeat,
)

"""Damaged copies of a file, without end, the same for the same seed.

In: a seed and a whole file. Out: mutants. Some are a flipped bit away from the file, some have lengths and counts that
are absurd, some are cut or joined elsewhere: what parsers meet in files that were made to harm them, or fell apart.
"""

import random
from collections.abc import Iterator

ABSURD = [
    *(value.to_bytes(width, order) for width, top in ((1, 8), (2, 16), (4, 32), (8, 64)) for order in ("little", "big")
      for value in (0, 1, (1 << top) - 1, 1 << (top - 1), (1 << (top - 1)) - 1, 1 << (top // 2))),
]  # fmt: skip
WORDS = [
    b"null", b"true", b"{}", b"[]", b'""', b"-1", b"0", b"1e309", b"NaN", b"Infinity", b"9" * 400, b"[" * 3000, b"\0",
    b"\xff\xfe", "\u202e".encode(), b"\r\n", b",", b"\t", b"\"", b"~nouser", b"../", b"0x", b"1_0", b"'", b"=", b";",
]  # fmt: skip
MOST_CHANGES = 6


def mutations(seed: int, whole: bytes) -> Iterator[bytes]:
    """Mutants of a file that holds at least a byte."""
    rng = random.Random(seed)
    while True:
        mutant = bytearray(whole)
        for _ in range(rng.randint(1, MOST_CHANGES)):
            if not mutant:
                mutant += b"\0"
            rng.choice(CHANGES)(rng, mutant)
        yield bytes(mutant)


def _place(rng: random.Random, mutant: bytearray) -> int:
    """A byte of the file: half of the time near its beginning or its end, where lengths and tables lie."""
    near = min(len(mutant), 512)
    drawn = rng.random()
    if drawn < 0.35:
        return rng.randrange(near)
    return len(mutant) - 1 - rng.randrange(near) if drawn < 0.5 else rng.randrange(len(mutant))


def _flip(rng: random.Random, mutant: bytearray) -> None:
    mutant[_place(rng, mutant)] ^= 1 << rng.randrange(8)


def _set_number(rng: random.Random, mutant: bytearray) -> None:
    at, value = _place(rng, mutant), rng.choice(ABSURD)
    mutant[at : at + len(value)] = value


def _set_word(rng: random.Random, mutant: bytearray) -> None:
    at, word = _place(rng, mutant), rng.choice(WORDS)
    mutant[at : at + rng.choice((0, len(word)))] = word


def _cut(rng: random.Random, mutant: bytearray) -> None:
    at = _place(rng, mutant)
    del mutant[at : at + rng.choice((1, 2, 4, 16, 256, len(mutant)))]


def _repeat(rng: random.Random, mutant: bytearray) -> None:
    at, length = _place(rng, mutant), rng.choice((1, 4, 16, 64, 1024))
    mutant[at:at] = mutant[at : at + length] * rng.choice((1, 2, 16))


def _move(rng: random.Random, mutant: bytearray) -> None:
    at, to, length = _place(rng, mutant), _place(rng, mutant), rng.choice((2, 8, 32, 512))
    mutant[to : to + length] = mutant[at : at + length]


CHANGES = (_flip, _flip, _flip, _set_number, _set_number, _set_word, _cut, _repeat, _move)

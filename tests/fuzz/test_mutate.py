"""The mutator is the same for the same seed, changes every part of a file, and survives the smallest."""

from itertools import islice

from tests.fuzz.mutate import mutations

WHOLE = bytes(range(256)) * 8


def test_a_seed_gives_the_same_copies_and_another_one_others() -> None:
    first = list(islice(mutations(1, WHOLE), 200))
    assert first == list(islice(mutations(1, WHOLE), 200))
    assert first != list(islice(mutations(2, WHOLE), 200))
    assert WHOLE not in first


def test_every_part_is_changed_and_lengths_vary() -> None:
    copies = list(islice(mutations(0, WHOLE), 3_000))
    of_same_length = [copy for copy in copies if len(copy) == len(WHOLE)]
    changed = {at // 64 for copy in of_same_length for at in range(0, len(WHOLE)) if copy[at] != WHOLE[at]}
    assert changed == set(range(len(WHOLE) // 64))
    assert min(map(len, copies)) < len(WHOLE) // 4
    assert max(map(len, copies)) > len(WHOLE)


def test_tiny_files_are_changed_too() -> None:
    for whole in (b"", b"x"):
        assert all(copy != whole for copy in islice(mutations(3, whole), 100))

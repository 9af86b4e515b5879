"""A name that is not known: near ones are named, however they are spelt, else all."""

import pytest

from magnet_core.errors import MagnetError
from magnet_core.registry import look_up, near_names


def test_near_names_do_not_mind_upper_and_lower_case() -> None:
    assert near_names("UNI", ["resnet50", "uni"]) == "did you mean uni?"
    assert near_names("p1", ["P1", "Q7"]) == "did you mean P1?"


def test_names_without_a_likeness_are_listed() -> None:
    assert near_names("xyz", ["b", "a"]) == "choose one of: a, b"
    with pytest.raises(MagnetError, match="--backbone: expected a known name, found 'xyz'; choose one of: a, b"):
        look_up({"a": 1, "b": 2}, "xyz", where="--backbone")

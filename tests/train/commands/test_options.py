import pytest

from magnet_core.errors import MagnetError
from train.commands.options import split_names, split_numbers


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "--folds: expected names with commas between, found ''; leave it out, or name some"),
        (" ,", "--folds: expected names with commas between, found ' ,'; leave it out, or name some"),
        ("1,a", "--folds: expected whole numbers such as 0,2, found 1,a; correct it"),
    ],
)
def test_a_list_that_names_nothing_is_refused(text: str, says: str) -> None:
    with pytest.raises(MagnetError) as told:
        split_numbers("--folds", text)
    assert str(told.value) == says


def test_lists_keep_their_order_and_name_each_once() -> None:
    assert split_numbers("--folds", "1, 0,1") == (1, 0)
    assert split_names("--genes", "b, a,b") == ("b", "a")
    assert split_names("--genes", None) is None

import pytest

from magnet_core.errors import MagnetError
from train.predict.formats import FORMATS, find_format


def test_no_two_formats_write_to_one_file() -> None:
    suffixes = [each.suffix for each in FORMATS.values()]
    assert len(set(suffixes)) == len(suffixes)
    assert not [one for one in suffixes for other in suffixes if one != other and one.endswith(other)]


def test_an_unknown_format_is_one_line_with_the_known_ones() -> None:
    with pytest.raises(MagnetError, match=r"--format: expected a known name, found 'h5'; did you mean h5ad\?"):
        find_format("h5")

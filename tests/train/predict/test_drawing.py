import numpy as np
import pytest

from magnet_core.errors import MagnetError
from magnet_core.records import Genes
from train.predict.drawing import Drawing, Level, read_level

GENES = Genes(np.array(["ENSG1", "ENSG2"]), np.array(["EPCAM", "CD3E"]))


def test_a_level_is_a_value_or_a_share_of_rows() -> None:
    values = np.arange(10.0)
    assert read_level(" -1.5") == Level(-1.5)
    assert read_level("1.5").of(values) == 1.5
    assert (values > read_level("80%").of(values)).sum() == 2


@pytest.mark.parametrize("text", ["", "high", "100%", "-1%", "nan", "inf", "%"])
def test_a_level_that_is_none_is_one_line(text: str) -> None:
    with pytest.raises(MagnetError, match=r"--above: expected a level such as 1.5, or a share of rows such as 90%"):
        read_level(text)


def test_genes_are_found_by_name_and_id_once_each() -> None:
    assert Drawing(("CD3E", "ENSG1", "ENSG2")).columns(GENES) == [1, 0]
    with pytest.raises(MagnetError, match=r"--draw: expected genes of the 2 .* found 'epcam'; did you mean EPCAM"):
        Drawing(("epcam",)).columns(GENES)

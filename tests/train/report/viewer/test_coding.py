import base64
import zlib

import numpy as np

from train.report.viewer.coding import LARGEST, coded_rows, coded_text, coded_values


def planes(word: str, itemsize: int) -> np.ndarray:
    content = np.frombuffer(zlib.decompress(base64.b64decode(word)), np.uint8)
    return np.ascontiguousarray(content.reshape(itemsize, -1).T)


def test_values_come_back_to_one_part_in_two_thousand() -> None:
    drawn = np.random.default_rng(0).gamma(1, 3, 5000).astype(np.float32)
    drawn[7] = np.nan
    back = planes(coded_values([drawn[:2000], drawn[2000:]]), 2).view("<f2").ravel().astype(np.float32)
    np.testing.assert_allclose(back, drawn, rtol=1 / 2000, atol=1e-7)


def test_values_beyond_half_precision_end_there_without_a_word() -> None:
    back = planes(coded_values([np.array([1e9, -1e9, 1.0])]), 2).view("<f2").ravel()
    assert back.tolist() == [LARGEST, -LARGEST, 1]


def test_rows_come_back_and_are_small_where_neighbours_follow_each_other() -> None:
    rows = np.where(np.arange(400_000).reshape(500, 800) % 800 < 700, np.arange(400_000).reshape(500, 800), -1)
    word = coded_rows(rows.astype(np.int32))
    np.testing.assert_array_equal(planes(word, 4).view("<i4").ravel().cumsum(), rows.ravel())
    assert len(word) < 20_000


def test_text_comes_back() -> None:
    assert zlib.decompress(base64.b64decode(coded_text("µ\nb"))).decode() == "µ\nb"

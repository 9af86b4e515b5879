import numpy as np

from extract.blocks import Regrouper, batches_in_blocks, rows_in


def test_batches_stay_inside_their_block() -> None:
    assert batches_in_blocks([slice(0, 5), slice(10, 12)], 2) == [
        slice(0, 2), slice(2, 4), slice(4, 5), slice(10, 12),
    ]  # fmt: skip


def test_ranges_come_whole_however_the_runs_fall_and_gaps_are_left_out() -> None:
    ranges = [slice(2, 6), slice(6, 7), slice(10, 13)]
    values = np.arange(20)[:, None] * np.ones((1, 3), dtype=int)
    for run in (1, 2, 3, 5, 20):
        regrouper = Regrouper(ranges)
        got = [
            (rows, block.copy())
            for start in range(0, 20, run)
            for rows, block in regrouper.add(start, values[start : start + run])
        ]
        assert [rows for rows, _ in got] == ranges
        for rows, block in got:
            np.testing.assert_array_equal(block, values[rows])


def test_rows_that_are_there_already_may_be_missing_from_the_runs() -> None:
    regrouper = Regrouper([slice(0, 2), slice(6, 8)])
    got = [
        (rows, block)
        for start, count in ((0, 2), (6, 2))
        for rows, block in regrouper.add(start, np.arange(start, start + count))
    ]
    np.testing.assert_array_equal(np.concatenate([block for _, block in got]), [0, 1, 6, 7])


def test_rows_in() -> None:
    np.testing.assert_array_equal(rows_in([slice(1, 2), slice(3, 5)], 6), [False, True, False, True, True, False])

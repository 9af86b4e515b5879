import pytest

from magnet_core.console import collected, progress
from magnet_core.log_bar import LogBar
from magnet_core.unseen_bar import UnseenBars


def test_what_all_open_bars_have_done_is_told() -> None:
    told: list[float] = []
    bars = UnseenBars(told.append)
    with bars.open(total=4) as one, bars.open(total=12) as other:
        one.update(4)
        other.update(4)
    with bars.open(desc="steps") as later:
        later.update()
        later.total = 2
        later.update(3)
    assert list(bars.open("ab")) == ["a", "b"]
    assert told == [0.25, 0.5, 1.0, 0.5, 1.0]


def test_bars_of_work_that_is_not_seen_tell_and_show_nothing(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("magnet_core.console._bars", True)  # which is set for good in a process of an engine
    told: list[float] = []
    with collected(0, told.append), progress(total=2, desc="patches", even=False) as bar:
        bar.update()
        bar.set_postfix_str("loss 1")
    assert told == [0.5]
    assert capsys.readouterr().err == ""
    with progress(total=2) as bar:
        assert type(bar) is LogBar
        bar.update()
    assert told == [0.5]

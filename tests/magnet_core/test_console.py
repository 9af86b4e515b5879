"""What reaches the user of a command, on a terminal and in a job's log, quiet and verbose."""

import os
import pty
import subprocess
import sys
import termios
from pathlib import Path

import pytest

from magnet_core.console import progress
from magnet_core.log_bar import LogBar, human_seconds, plural

SCRIPT = """
import sys, time
from magnet_core import log_bar
from magnet_core.console import logger, notice, progress, speak
log_bar.EVERY_S = 0.01
speak(verbose="verbose" in sys.argv, quiet="quiet" in sys.argv)
log = logger("extract.reader")
with progress(range(5), desc="slides", unit="slide") as slides:
    for slide in slides:
        slides.set_postfix_str(f"S{slide}")
        with progress(total=3, desc=f"S{slide}", unit="patch", leave=False) as bar:
            for _ in range(3):
                time.sleep(0.02)
                bar.update()
log.warning("2 of 5 spots\\nhave no counts")
log.info("decoded")
notice("going on")
try:
    raise ValueError("bad slide")
except ValueError as error:
    log.error("failed: S1: %s", error, exc_info=True)
"""


def told(*volume: str) -> bytes:
    """What the script writes to a stderr that is no terminal."""
    return subprocess.run([sys.executable, "-c", SCRIPT, *volume], stderr=subprocess.PIPE, check=True).stderr


def test_a_log_gets_whole_lines_without_carriage_returns() -> None:
    written = told()
    assert b"\r" not in written
    assert b"\x1b" not in written
    lines = written.decode().splitlines()
    assert any(line.startswith("S0  1/3 patches  33 %  0 s left") for line in lines)
    assert any(line.startswith("slides  5/5 slides  100 %  in ") for line in lines)
    assert lines[-3:] == ["warning: 2 of 5 spots have no counts", "going on", "failed: S1: bad slide"]


def test_quiet_leaves_errors_and_verbose_adds_what_went_on_and_where_an_error_came_from() -> None:
    assert told("quiet").decode().splitlines() == ["failed: S1: bad slide"]
    written = told("verbose").decode()
    assert "extract.reader: decoded\n" in written
    assert "Traceback" in written
    assert written.endswith("failed: S1: bad slide\n")
    assert "Traceback" not in told().decode()


def test_a_terminal_gets_bars_and_messages_on_lines_of_their_own() -> None:
    reader, writer = pty.openpty()
    termios.tcsetwinsize(writer, (24, 80))
    with subprocess.Popen([sys.executable, "-c", SCRIPT], stderr=writer) as process:
        os.close(writer)
        written = b""
        try:
            while piece := os.read(reader, 4096):
                written += piece
        except OSError:  # the terminal is gone with its last writer
            pass
    os.close(reader)
    assert process.returncode == 0
    assert b"\rslides:" in written
    assert b"warning: 2 of 5 spots have no counts\r\n" in written
    assert b"going on\r\n" in written


def test_an_error_of_a_command_says_where_it_came_from_if_asked(tmp_path: Path) -> None:
    for volume, lines in (([], 1), (["--quiet"], 1), (["-v"], None)):
        for command in (["info", *volume, str(tmp_path)], [*volume, "info", str(tmp_path)]):
            done = subprocess.run(
                [sys.executable, "-m", "cache", *command], capture_output=True, text=True, check=False
            )
            assert done.returncode == 1
            assert done.stderr.splitlines()[-1].startswith(f"error: {tmp_path}: expected a store")
            assert ("Traceback" in done.stderr) == (lines is None)
            assert lines in (None, len(done.stderr.splitlines()))


def test_a_bar_in_a_log_says_how_far_it_is(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    seconds = 0.0
    monkeypatch.setattr("magnet_core.log_bar.time.monotonic", lambda: seconds)
    bar = LogBar(total=1000, desc="S1", unit="row", initial=100)
    seconds = 19.0  # too early for a line
    bar.update(90)
    bar.set_postfix_str("loss 0.1")
    seconds = 21.0
    bar.update(60)
    bar.update(1)
    seconds = 600.0
    bar.close()
    bar.close()
    assert capsys.readouterr().err.splitlines() == [
        "S1  250/1000 rows  25 %  105 s left  loss 0.1",
        "S1  251/1000 rows  25 %  in 10 min  loss 0.1",
    ]


def test_no_time_left_is_guessed_of_uneven_steps(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    bar = LogBar(total=4, unit="cell", even=False)
    bar.n = 1
    assert bar.line() == "1/4 cells  25 %"
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    for even in (True, False):
        with progress(total=4, initial=1, unit="cell", even=even) as shown:
            shown.update()
        assert ("<" in capsys.readouterr().err) == even


def test_short_work_that_leaves_nothing_and_what_is_not_to_be_shown_write_nothing(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert list(progress(range(3), desc="a", unit="file", leave=False)) == [0, 1, 2]
    assert list(progress(range(3), desc="b", unit="file", disable=True)) == [0, 1, 2]
    assert capsys.readouterr().err == ""
    assert list(progress(iter("xy"), desc="c", unit="file")) == ["x", "y"]
    assert capsys.readouterr().err == "c  2 files  in 0 s\n"


def test_units_and_durations_in_words() -> None:
    assert [plural(unit) for unit in ("patch", "row", "class")] == ["patches", "rows", "classes"]
    assert [human_seconds(seconds) for seconds in (0.4, 90, 150, 9000)] == ["0 s", "90 s", "2 min", "2.5 h"]

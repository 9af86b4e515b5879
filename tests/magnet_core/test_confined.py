"""A function in a process of its own: its result, or one line for whatever ended it, and the next call works."""

import ctypes
import os
import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from magnet_core.confined import confined
from magnet_core.errors import MagnetError

HERE = os.getpid()
ROOT = Path(__file__).resolve().parents[2]


def total(values: list[int]) -> dict[str, int]:
    return {"total": sum(values), "process": os.getpid()}


def spin() -> None:
    while True:
        pass


def hoard() -> int:
    return len(bytearray(8 << 30))


def hoard_of(nbytes: int) -> int:
    return len(bytearray(nbytes))


def hoard_in_pieces() -> int:
    return sum(map(len, [bytes(1 << 26) for _ in range(1000)]))


def crash() -> None:
    ctypes.string_at(0)


def refuse() -> None:
    raise ValueError("a line\nand another")


def leave() -> None:
    sys.exit("gone")


class Panic(BaseException):
    """As that of a Rust library, which is no Exception."""


def panic() -> None:
    raise Panic("index out of bounds")


def chatter() -> int:
    sys.stdout.write("what a library prints\n")
    sys.stdout.flush()
    os.write(1, b"and what C prints\n")
    return 7


def call(function: Callable[..., Any], *arguments: Any) -> Any:
    return confined(
        function, *arguments, where="file", expected="order", remedy="mend it", seconds=0.5, max_bytes=2 << 30
    )


def test_a_result_comes_back_from_one_process_that_is_kept() -> None:
    first, second = call(total, [1, 2]), call(total, [3])
    assert (first["total"], second["total"]) == (3, 3)
    assert first["process"] == second["process"] != HERE
    assert call(chatter) == 7


@pytest.mark.parametrize(
    ("function", "said"),
    [
        (refuse, "file: expected order, found a line and another; mend it"),
        (spin, "found what takes more than 0.5 s to look at"),
        (hoard, "found what asks for absurd memory"),
        (hoard_in_pieces, "found what asks for absurd memory"),
        (crash, "found what crashes the library that reads it (SIGSEGV)"),
        (panic, "found Panic: index out of bounds"),
        (leave, "found what crashes the library"),
    ],
)
def test_whatever_ends_it_is_one_line_and_the_next_call_works(function: Callable[[], None], said: str) -> None:
    with pytest.raises(MagnetError) as caught:
        call(function)
    assert said in str(caught.value)
    assert call(total, [1, 2])["total"] == 3


def test_a_process_that_was_forked_has_one_of_its_own() -> None:
    theirs, (reader, writer) = call(total, [])["process"], os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of forking a process that has threads
        child = os.fork()
    if child == 0:
        os.write(writer, str(call(total, [])["process"]).encode())
        os._exit(0)
    os.waitpid(child, 0)
    assert int(os.read(reader, 99)) not in (theirs, child)
    assert call(total, [])["process"] == theirs


def test_a_folder_in_which_the_user_stands_is_not_imported_from(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "json.py").write_text("raise SystemExit('wrong module')")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(MagnetError, match="crashes"):
        call(leave)  # so that the next call starts a process here
    assert call(total, [4])["total"] == 4


def test_memory_is_bounded_where_a_user_may_not_have_all_of_it_either() -> None:
    """As under `ulimit -v` of a cluster, which a process without privileges cannot raise."""
    program = (
        "import resource; resource.setrlimit(resource.RLIMIT_AS, (4 << 30, 4 << 30))\n"
        "from tests.magnet_core.test_confined import call, hoard_of\n"
        "print(call(hoard_of, 1 << 20), call(hoard_of, 3 << 30))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False, cwd=ROOT)
    assert "MagnetError: file: expected order, found what asks for absurd memory; mend it" in done.stderr

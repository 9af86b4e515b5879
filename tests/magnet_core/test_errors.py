"""The one line of an error, whatever was found: short, printable, and without a password or a token in it."""

import pytest

from magnet_core.errors import MagnetError, in_one_line, without_secrets


def line(found: str, where: str = "a.csv") -> str:
    return str(MagnetError(where, expected="a number", found=found, remedy="change it"))


def test_an_absurdly_long_find_is_shown_without_its_middle() -> None:
    told = line("'" + "ab" * 100_000 + "'", where="w" * 100_000)
    assert told.startswith("w" * 600 + " … ")
    assert "found 'abab" in told
    assert told.endswith("abab' (200002 characters); change it")
    assert len(told) < 2000
    assert line("x" * 400) == f"a.csv: expected a number, found {'x' * 400}; change it"


def test_nothing_in_it_moves_the_cursor_or_starts_a_line() -> None:
    told = line("a\x1b[2J\x07b\r\nc\u2028d\u202ee\0f\ud800 µm × 2")
    assert told == r"a.csv: expected a number, found a\x1b[2J\x07b c d\u202ee\x00f\ud800 µm × 2; change it"
    assert told.isprintable()


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("no way to https://me:s3cret@hub.lab/api", "no way to https://…@hub.lab/api"),
        ("proxy http://me:s3@cret@10.0.0.1:8080", "proxy http://…@10.0.0.1:8080"),
        ("https://hub.lab/org/name@v1 as it is", "https://hub.lab/org/name@v1 as it is"),
        ("Illegal header value b'Bearer s3cret'", "Illegal header value b'Bearer …'"),
        ("hf_" + "a1B2" * 9 + " was refused", "… was refused"),
        ("mail me@lab.org, hf_hub_download", "mail me@lab.org, hf_hub_download"),
    ],
)
def test_passwords_and_tokens_are_left_out(text: str, shown: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "my-own-token")
    assert line(f"{text} my-own-token") == f"a.csv: expected a number, found {shown} …; change it"
    assert without_secrets(text) == in_one_line(text) == shown
    assert line(text) == f"a.csv: expected a number, found {shown}; change it"

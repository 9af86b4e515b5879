"""The one error a user meets: a single line that says where, what was expected, what was found, and the remedy."""

import os
import re
from collections.abc import Callable
from typing import Self

from magnet_core.environment import ends_all, refusal_line

MOST_FOUND = 400  # characters of what was found that a line shows; files hold cells of any length
MOST_WHERE = 1200  # a path may be long, and is to be copied
SHORTEST_TOKEN = 6  # of HF_TOKEN; what is shorter stands in other words
_SECRETS = re.compile(
    r"(?<=://)[^/?#\s]*@"  # user:password@ of an address
    r"|\bhf_[A-Za-z0-9]{30,}|(?<=\bBearer )[^\s'\"]+"  # a token of the Hugging Face hub
)


class MagnetError(Exception):
    """Input, a file or a setting is not what it must be.

    The text is one line, ``where: expected …, found …; remedy``, so that it can be read in a log of a
    hundred slides. Command lines print it and exit with code 1; a traceback is never shown for it.
    """

    def __init__(self, where: object, *, expected: str, found: str, remedy: str) -> None:
        place, seen = _shortened(str(where), MOST_WHERE), _shortened(found, MOST_FOUND)
        super().__init__(in_one_line(f"{place}: expected {expected}, found {seen}; {remedy}"))

    @classmethod
    def of_line(cls, line: str) -> Self:
        """Return an error whose text is a line that is made already, as that of a fault of the machine is."""
        return cls.__new__(cls, in_one_line(_shortened(line, MOST_WHERE + MOST_FOUND)))

    def __reduce__(self) -> tuple[Callable[[str], Self], tuple[str]]:
        """An error goes from one process to another as its line."""
        return type(self).of_line, (str(self),)


class PlaceError(MagnetError):
    """Nothing more can be written where results go: no fault of one slide, as the next would meet it too."""

    @classmethod
    def of(cls, error: Exception, *, where: object) -> Self:
        """Return what the system or LMDB reports in the words of `magnet_core.environment`."""
        return cls.of_line(refusal_line(error, where=where))


def machine_error(error: Exception, *, where: object) -> MagnetError:
    """Return what the machine refuses as one line; a `PlaceError` where nothing more can be written."""
    kind = PlaceError if ends_all(error) else MagnetError
    return kind.of_line(refusal_line(error, where=where))


class MissingExtraError(MagnetError):
    """An optional package is not installed; the text names the extra that brings it."""

    def __init__(self, where: object, *, package: str, extra: str) -> None:
        super().__init__(
            where,
            expected=f"the package '{package}'",
            found="it is not installed",
            remedy=f"install it with: pip install 'magnet-hd[{extra}]'",
        )


def in_one_line(text: str) -> str:
    """Return a text that may hold anything as one line for a terminal: no control characters, no password or token."""
    shown = without_secrets(" ".join(text.split()))
    return "".join(each if each.isprintable() else ascii(each)[1:-1] for each in shown)


def without_secrets(text: str) -> str:
    """Return a text without the passwords of addresses and the tokens of the hub in it."""
    token = os.environ.get("HF_TOKEN", "").strip()
    if len(token) >= SHORTEST_TOKEN:
        text = text.replace(token, "…")
    return _SECRETS.sub(lambda secret: "…@" if secret[0].endswith("@") else "…", text)


def _shortened(text: str, most: int) -> str:
    """Return a text without its middle where it is too long to be read."""
    if len(text) <= most:
        return text
    return f"{text[: most // 2]} … {text[-most // 4 :]} ({len(text)} characters)"

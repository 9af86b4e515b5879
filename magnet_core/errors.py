"""The one error a user meets: a single line that says where, what was expected, what was found, and the remedy."""


class MagnetError(Exception):
    """Input, a file or a setting is not what it must be.

    The text is one line, ``where: expected …, found …; remedy``, so that it can be read in a log of a
    hundred slides. Command lines print it and exit with code 1; a traceback is never shown for it.
    """

    def __init__(self, where: object, *, expected: str, found: str, remedy: str) -> None:
        text = f"{where}: expected {expected}, found {found}; {remedy}"
        super().__init__(" ".join(text.split()))


class MissingExtraError(MagnetError):
    """An optional package is not installed; the text names the extra that brings it."""

    def __init__(self, where: object, *, package: str, extra: str) -> None:
        super().__init__(
            where,
            expected=f"the package '{package}'",
            found="it is not installed",
            remedy=f"install it with: pip install 'magnet-hd[{extra}]'",
        )

"""The one error a user meets: a single line that says where, what was expected, what was found, and the remedy."""

import errno


class MagnetError(Exception):
    """Input, a file or a setting is not what it must be.

    The text is one line, ``where: expected …, found …; remedy``, so that it can be read in a log of a
    hundred slides. Command lines print it and exit with code 1; a traceback is never shown for it.
    """

    def __init__(self, where: object, *, expected: str, found: str, remedy: str) -> None:
        text = f"{where}: expected {expected}, found {found}; {remedy}"
        super().__init__(" ".join(text.split()))


# What the system reports where nothing more can be written: disk or quota full, file too large, mounted read-only.
NO_PLACE = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS})


class PlaceError(MagnetError):
    """Nothing more can be written where results go: no fault of one slide, as the next would meet it too."""

    @classmethod
    def of(cls, error: Exception, *, where: object, remedy: str = "") -> "PlaceError":
        """Return what the system or LMDB reports as one line."""
        named = error.filename if isinstance(error, OSError) and error.filename else where
        found = (error.strerror if isinstance(error, OSError) else None) or str(error)
        remedy = remedy or "free space, or choose another place, and run again; what is finished is kept"
        return cls(named, expected="a disk that takes more", found=found, remedy=remedy)


class MissingExtraError(MagnetError):
    """An optional package is not installed; the text names the extra that brings it."""

    def __init__(self, where: object, *, package: str, extra: str) -> None:
        super().__init__(
            where,
            expected=f"the package '{package}'",
            found="it is not installed",
            remedy=f"install it with: pip install 'magnet-hd[{extra}]'",
        )

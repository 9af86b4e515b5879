"""Paths as people write them, in a sheet, a recipe or after an option: any text may stand there.

In: a text or a path. Out: a path, or in words what is wrong with the file it names; no error but `MagnetError`.
"""

from pathlib import Path

from magnet_core.errors import MagnetError

STAGE_TO = "MAGNET_HD_STAGE_TO"  # environment variable: the folder of `cache.staging`


def written_path(text: str, *, where: str) -> Path:
    """Return the path that somebody wrote, with `~` as the home folder; what can be no path is an error."""
    try:
        path = Path(text).expanduser()
    except RuntimeError as error:  # the system knows no such user, or no home folder
        home = text.partition("/")[0]
        expected, remedy = "a path", "write it without '~'"
        raise MagnetError(where, expected=expected, found=f"'{home}', which has no folder", remedy=remedy) from error
    if "\0" in text:
        raise MagnetError(where, expected="a path", found=f"'{text}', with a NUL in it", remedy="write it anew")
    return path


def no_file(path: Path) -> str:
    """Say why there is no file at a path, such as `a folder` or `Permission denied`; nothing where there is one."""
    try:
        if path.is_file():
            return ""
        return "a folder" if path.is_dir() else "no such file"
    except OSError as error:
        return error.strerror or type(error).__name__

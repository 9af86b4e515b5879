"""Files that stand in the place of others: empty ones, Git LFS pointers, web pages saved under a file's name.

In: a path that should hold an image, counts or weights. Out: nothing, or one line that says what lies there instead
and how the real file is got. Serves every reader: each calls it before a library sees the file.
"""

from pathlib import Path

from magnet_core.errors import MagnetError

LFS_POINTER = b"version https://git-lfs"  # how every pointer begins, by the specification of Git LFS
WEB_PAGE = (b"<!doctype html", b"<html")
BYTE_ORDER_MARK = b"\xef\xbb\xbf"
FIRST_BYTES = 1024


def refuse_stand_in(path: Path) -> None:
    """Raise `MagnetError` for an empty file, a Git LFS pointer, and a web page saved in the place of the file."""
    try:
        with path.open("rb") as file:
            first = file.read(FIRST_BYTES)
    except OSError as error:
        found = error.strerror or str(error)
        raise MagnetError(path, expected="a file to read", found=found, remedy="check its permissions") from error
    if not first:
        raise MagnetError(path, expected="a file with content", found="an empty file (0 bytes)",
                          remedy="copy or download it again: the transfer did not finish")  # fmt: skip
    if first.startswith(LFS_POINTER):
        raise MagnetError(path, expected="the file itself", found="a Git LFS pointer, the file's place in a repository",
                          remedy="fetch the content in its repository with: git lfs pull")  # fmt: skip
    if first.removeprefix(BYTE_ORDER_MARK).lstrip().lower().startswith(WEB_PAGE):
        raise MagnetError(path, expected="the file itself", found="a web page (HTML) saved under its name",
                          remedy="download it again: a page of log-in or of an error was saved instead")  # fmt: skip

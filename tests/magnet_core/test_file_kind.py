"""What lies in the place of a file is called by its name, and a real file is let through."""

from pathlib import Path

import pytest

from magnet_core.errors import MagnetError
from magnet_core.file_kind import refuse_stand_in
from magnet_core.slides import open_slide

POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n"
STAND_INS = [
    (b"", "an empty file"),
    (POINTER, "a Git LFS pointer.*git lfs pull"),
    (b"<!DOCTYPE html>\n<html><body>403 Forbidden</body></html>", "a web page"),
    (b"\xef\xbb\xbf \r\n<HTML>", "a web page"),
]


@pytest.mark.parametrize(("content", "found"), STAND_INS)
def test_a_stand_in_is_called_so(tmp_path: Path, content: bytes, found: str) -> None:
    path = tmp_path / "slide.tif"
    path.write_bytes(content)
    for read in (refuse_stand_in, open_slide):
        with pytest.raises(MagnetError, match=rf"slide\.tif: expected .*found {found}") as caught:
            read(path)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("content", [b"\0", b"II*\0", b"version 1", b"<svg/>", b"gene\tcount\n"])
def test_other_files_are_let_through(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "file"
    path.write_bytes(content)
    refuse_stand_in(path)
    assert path.read_bytes() == content


def test_a_file_that_may_not_be_read_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(MagnetError, match="found No such file or directory"):
        refuse_stand_in(tmp_path / "absent")

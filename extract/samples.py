"""The sample table: which slides there are, where their files lie, and what the user states about them.

In: samples.csv with the columns slide_id,image,counts,platform,mpp,patient (only the first two are required). Paths are
relative to its folder. Commas, semicolons or tabs separate cells, as its header has them or Excel's line `sep=;` says;
the text is UTF-8, or UTF-16 as Excel writes it. Out: one `Sample` a row. A mistake of the table is one line that
names file and line, and stops everything; a file that is not there fails its slide alone (`check_files`).
"""

import csv
import io
import re
from collections.abc import Sequence
from pathlib import Path

from extract.readers import platform_named
from magnet_core.errors import MagnetError
from magnet_core.paths import no_file, written_path
from magnet_core.records import Sample
from magnet_core.registry import look_up, near_names
from magnet_core.slides import MAX_MPP, MIN_MPP

REQUIRED_COLUMNS = ("slide_id", "image")
COLUMNS = (*REQUIRED_COLUMNS, "counts", "platform", "mpp", "patient")
OVERRIDES = "!"  # after an mpp: it holds whatever the files state
SEPARATORS = {",": "commas", ";": "semicolons", "\t": "tabs"}
MOST_SLIDES = 10_000
MOST_CHARACTERS = 4096  # of a cell: as many as a path may have
MOST_BYTES = 16 << 20
NUMBER = re.compile(r"(?:[0-9]+[.,]?[0-9]*|[.,][0-9]+)(?:[eE][+-]?[0-9]+)?")  # 0.25, and 0,25 as Excel may write it
FOLDER_NAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,98}[A-Za-z0-9_-])?")


def read_samples(path: Path) -> list[Sample]:
    """Read and check samples.csv, not the files it names. Raises `MagnetError` at the first mistake."""
    rows = _read_rows(path)
    if not rows:
        raise MagnetError(
            path,
            expected=f"a header line such as {','.join(COLUMNS)}",
            found="an empty file",
            remedy="write one line per slide below it",
        )
    (header_line, header), *body = _without_empty_columns(rows)
    _check_header(f"{path}, line {header_line}", header)
    if not body:
        raise MagnetError(
            path, expected="one line per slide", found="only a header", remedy="list your slides below it"
        )
    samples: list[Sample] = []
    line_of_id: dict[str, int] = {}
    for line, cells in body:
        where = f"{path}, line {line}"
        if len(cells) != len(header):
            raise MagnetError(
                where,
                expected=f"{len(header)} cells, as the header has",
                found=str(len(cells)),
                remedy="leave a cell empty between its separators, and quote a path that holds one",
            )
        sample = _sample(where, dict(zip(header, cells, strict=True)), folder=path.parent)
        first = line_of_id.setdefault(sample.slide_id.lower(), line)
        if first != line:
            raise MagnetError(
                where,
                expected="a slide_id that no other line has (upper and lower case are the same folder)",
                found=f"'{sample.slide_id}', which line {first} has",
                remedy="rename one of the two",
            )
        samples.append(sample)
    return samples


def check_files(sample: Sample) -> None:
    """Refuse a slide whose image or counts are not there."""
    for column, path in (("image", sample.image), ("counts", sample.counts)):
        fault = "" if path is None else no_file(path)
        if fault and (column, fault) != ("counts", "a folder"):
            is_folder = fault == "a folder"
            raise MagnetError(
                f"slide '{sample.slide_id}'",
                expected="an image file" if is_folder else f"column '{column}' of samples.csv to name an existing path",
                found=f"the folder {path}" if is_folder else f"{fault.replace('no such file', 'nothing')} at {path}",
                remedy="name the file in column 'image' of samples.csv"
                if is_folder
                else "correct it; paths are relative to the folder of samples.csv",
            )


def select(samples: Sequence[Sample], ids: Sequence[str]) -> list[Sample]:
    """Return the samples with these ids, in the order of `ids`; an unknown id is an error with the near names."""
    by_id = {sample.slide_id: sample for sample in samples}
    return [look_up(by_id, slide_id, where="--slide") for slide_id in ids]


def _read_rows(path: Path) -> list[tuple[int, list[str]]]:
    """Line number and stripped cells of each line that is not blank; a line `sep=` is none of the table."""
    text = _text(path)
    first_line = re.split(r"[\r\n]", text.lstrip("\r\n "), maxsplit=1)[0]
    separator = _separator(first_line, where=path)
    reader = csv.reader(io.StringIO(text, newline=""), strict=True, delimiter=separator)
    rows: list[tuple[int, list[str]]] = []
    try:
        for cells in reader:
            stripped = [cell.strip() for cell in cells]
            if any(stripped):
                _check_row(f"{path}, line {reader.line_num}", stripped, num_rows=len(rows))
                rows.append((reader.line_num, stripped))
    except csv.Error as error:
        expected = "comma-separated text" if separator == "," else f"text separated by {SEPARATORS[separator]}"
        raise MagnetError(path, expected=expected, found=str(error), remedy="check its quotes") from error
    return rows[1:] if _stated_separator(first_line) else rows


def _text(path: Path) -> str:
    """Return the text of the table without its byte-order mark."""
    remedy = "write one, or pass --samples PATH"
    if found := no_file(path):
        raise MagnetError(path, expected="a sample table", found=found, remedy=remedy)
    try:
        with path.open("rb") as file:
            content = file.read(MOST_BYTES + 1)
    except OSError as error:
        found = error.strerror or str(error)
        raise MagnetError(path, expected="a sample table", found=found, remedy=remedy) from error
    if len(content) > MOST_BYTES:
        expected = f"a sample table of at most {MOST_BYTES >> 20} MiB"
        raise MagnetError(path, expected=expected, found="a larger file", remedy=remedy)
    encoding = "utf-16" if content[:2] in {b"\xff\xfe", b"\xfe\xff"} else "utf-8-sig"
    try:
        return content.decode(encoding)
    except UnicodeDecodeError as error:
        raise MagnetError(path, expected="UTF-8 text", found=str(error), remedy="save it as 'CSV UTF-8'") from error


def _separator(first_line: str, *, where: object) -> str:
    """Return what separates the cells: what `sep=` states, or what splits a header into the most known columns.

    Of equals, what splits it into the most of any, and of those the comma.
    """
    if stated := _stated_separator(first_line):
        if stated not in SEPARATORS:
            expected, remedy = "commas, semicolons or tabs between cells", "save it comma-separated"
            raise MagnetError(f"{where}, line 1", expected=expected, found=f"'sep={stated}'", remedy=remedy)
        return stated

    def num_columns(separator: str) -> tuple[int, int]:
        names = first_line.split(separator)
        return sum(name.strip(' "') in COLUMNS for name in names), len(names)

    return max(SEPARATORS, key=num_columns)


def _stated_separator(first_line: str) -> str:
    """Return the separator of Excel's line `sep=;`; empty for any other line."""
    stated = re.fullmatch(r'"?sep=(.)"?', first_line, re.IGNORECASE)
    return stated[1] if stated else ""


def _check_row(where: str, cells: list[str], *, num_rows: int) -> None:
    if longest := max((cell for cell in cells if len(cell) > MOST_CHARACTERS), key=len, default=""):
        expected = f"cells of at most {MOST_CHARACTERS} characters"
        raise MagnetError(where, expected=expected, found=f"'{longest}'", remedy="check its quotes")
    if num_rows > MOST_SLIDES:
        expected, remedy = f"at most {MOST_SLIDES} slides", "list slides, one a line; or split the table"
        raise MagnetError(where, expected=expected, found="more lines", remedy=remedy)


def _without_empty_columns(rows: list[tuple[int, list[str]]]) -> list[tuple[int, list[str]]]:
    """Leave out the columns at the right without a name and without a cell, which spreadsheets add."""
    num_named = max((column for column, name in enumerate(rows[0][1], start=1) if name), default=0)
    return [(line, cells if any(cells[num_named:]) else cells[:num_named]) for line, cells in rows]


def _check_header(where: str, header: list[str]) -> None:
    for column in header:
        if column not in COLUMNS:
            raise MagnetError(where, expected="known columns", found=f"'{column}'", remedy=near_names(column, COLUMNS))
        if header.count(column) > 1:
            raise MagnetError(
                where, expected="each column once", found=f"'{column}' twice", remedy="remove one of them"
            )
    missing = [column for column in REQUIRED_COLUMNS if column not in header]
    if missing:
        raise MagnetError(
            where,
            expected=f"the columns {' and '.join(REQUIRED_COLUMNS)}",
            found=f"no {' and no '.join(missing)}",
            remedy=f"the full header is {','.join(COLUMNS)}",
        )


def _sample(where: str, cells: dict[str, str], *, folder: Path) -> Sample:
    slide_id = cells["slide_id"]
    if not FOLDER_NAME.fullmatch(slide_id):
        raise MagnetError(
            where,
            expected="a slide_id that can name a folder",
            found=f"'{slide_id}'",
            remedy="use up to 100 letters, digits, '.', '_' and '-', a letter or digit first and no '.' last",
        )
    if not cells["image"]:
        raise MagnetError(where, expected="a path in column 'image'", found="nothing", remedy="fill it in")
    counts, platform = cells.get("counts", ""), cells.get("platform", "")
    if platform:
        platform = platform_named(platform, where=f"{where}, platform")
    mpp, overrides = read_mpp(where, cells.get("mpp", ""))
    return Sample(
        slide_id=slide_id,
        image=folder / written_path(cells["image"], where=f"{where}, image"),
        counts=folder / written_path(counts, where=f"{where}, counts") if counts else None,
        platform=platform or None,
        mpp=mpp,
        patient=cells.get("patient", "") or slide_id,
        mpp_overrides=overrides,
    )


def read_mpp(where: str, cell: str) -> tuple[float | None, bool]:
    """Read `0.5`, or `0.5!`: the µm/px, and whether it overrides what the files state.

    A comma is a decimal one: no µm/px within the limits needs one between its thousands.
    """
    if not cell:
        return None, False
    number, overrides = cell.removesuffix(OVERRIDES), cell.endswith(OVERRIDES)
    mpp = float(number.replace(",", ".")) if NUMBER.fullmatch(number) else float("nan")
    if not MIN_MPP <= mpp <= MAX_MPP:
        raise MagnetError(
            where,
            expected=f"mpp in µm/px between {MIN_MPP} and {MAX_MPP:.0f}",
            found=f"'{cell}'",
            remedy="write a number such as 0.25, or leave it empty where the slide or Space Ranger states it",
        )
    return mpp, overrides

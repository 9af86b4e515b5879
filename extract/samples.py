"""The sample table: which slides there are, where their files lie, and what the user states about them.

In: samples.csv with the columns slide_id,image,counts,platform,mpp,patient (only the first two are required), in
comma-separated UTF-8. Paths are relative to its folder. Out: one `Sample` a row. A mistake of the table is one line
that names file and line, and stops everything; a file that is not there fails its slide alone (`check_files`).
"""

import csv
import re
from collections.abc import Sequence
from pathlib import Path

from extract.readers import platform_named
from magnet_core.errors import MagnetError
from magnet_core.records import Sample
from magnet_core.registry import look_up, near_names
from magnet_core.slides import MAX_MPP, MIN_MPP

REQUIRED_COLUMNS = ("slide_id", "image")
COLUMNS = (*REQUIRED_COLUMNS, "counts", "platform", "mpp", "patient")
OVERRIDES = "!"  # after an mpp: it holds whatever the files state
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
    (header_line, header), *body = rows
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
                remedy="leave a cell empty between its commas, and quote a path that holds a comma",
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
    image, counts = sample.image, sample.counts
    for column, path in (("image", image), ("counts", counts)):
        if path is not None and not path.exists():
            raise MagnetError(
                f"slide '{sample.slide_id}'",
                expected=f"column '{column}' of samples.csv to name an existing path",
                found=f"nothing at {path}",
                remedy="correct it; paths are relative to the folder of samples.csv",
            )
    if not image.is_file():
        raise MagnetError(
            f"slide '{sample.slide_id}'",
            expected="an image file",
            found=f"the folder {image}",
            remedy="name the file in column 'image' of samples.csv",
        )


def select(samples: Sequence[Sample], ids: Sequence[str]) -> list[Sample]:
    """Return the samples with these ids, in the order of `ids`; an unknown id is an error with the near names."""
    by_id = {sample.slide_id: sample for sample in samples}
    return [look_up(by_id, slide_id, where="--slide") for slide_id in ids]


def _read_rows(path: Path) -> list[tuple[int, list[str]]]:
    """Line number and stripped cells of each line that is not blank; a byte-order mark is skipped."""
    if not path.is_file():
        found = "a folder" if path.is_dir() else "no such file"
        raise MagnetError(path, expected="a sample table", found=found, remedy="write one, or pass --samples PATH")
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file, strict=True)
            rows = [(reader.line_num, [cell.strip() for cell in cells]) for cells in reader]
    except UnicodeDecodeError as error:
        raise MagnetError(path, expected="UTF-8 text", found=str(error), remedy="save it as 'CSV UTF-8'") from error
    except csv.Error as error:
        raise MagnetError(path, expected="comma-separated text", found=str(error), remedy="check its quotes") from error
    return [(line, cells) for line, cells in rows if any(cells)]


def _check_header(where: str, header: list[str]) -> None:
    for separator, name in ((";", "semicolons"), ("\t", "tabs")):
        if len(header) == 1 and separator in header[0]:
            raise MagnetError(where, expected="commas between cells", found=name, remedy="save it comma-separated")
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
    mpp, overrides = _mpp(where, cells.get("mpp", ""))
    return Sample(
        slide_id=slide_id,
        image=folder / Path(cells["image"]).expanduser(),
        counts=folder / Path(counts).expanduser() if counts else None,
        platform=platform or None,
        mpp=mpp,
        patient=cells.get("patient", "") or slide_id,
        mpp_overrides=overrides,
    )


def _mpp(where: str, cell: str) -> tuple[float | None, bool]:
    """Read `0.5`, or `0.5!`: the µm/px, and whether it overrides what the files state."""
    if not cell:
        return None, False
    number, overrides = cell.removesuffix(OVERRIDES), cell.endswith(OVERRIDES)
    try:
        mpp = float(number)
    except ValueError:
        mpp = float("nan")
    if not MIN_MPP <= mpp <= MAX_MPP:
        raise MagnetError(
            where,
            expected=f"mpp in µm/px between {MIN_MPP} and {MAX_MPP:.0f}",
            found=f"'{cell}'",
            remedy="write a number such as 0.25, or leave it empty where the slide or Space Ranger states it",
        )
    return mpp, overrides

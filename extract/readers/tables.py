"""Tables of others: CSV and TSV, gzipped or not, and parquet, read within bounds, with one line for what is wrong.

In: a path, and options of polars. Out: a table. A gzipped file is unpacked up to a multiple of its size. A parquet file
is read once within limits (`magnet_core.confined`), column by column, before it is read here: a damaged one may ask
for exabytes, or end the process.
"""

import gzip
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import Any

import polars as pl

from extract.readers.texts import LONGEST
from magnet_core.confined import confined
from magnet_core.errors import MagnetError

SMALL_BYTES = 64 << 20  # a file is unpacked up to this, whatever its size
MOST_PER_PACKED = 200  # bytes unpacked per byte; tables of counts, mostly zeros, reach some 20
PIECE_BYTES = 1 << 20
MOST_COLUMNS = 200_000  # genes of a table, of which no annotation has half as many
TEXTS = (pl.String, pl.Binary, pl.Categorical, pl.Enum)
MOST_ROWS = 1 << 20  # of a parquet file of any size; a larger one has as many as bytes, at most

# What polars raises; the second is of no class but BaseException.
TABLE_ERRORS = (pl.exceptions.PolarsError, pl.exceptions.PanicException, OSError, ValueError)


@contextmanager
def readable(path: Path, *, expected: str, remedy: str) -> Iterator[None]:
    """Turn what is raised while a table is read into one line."""
    try:
        yield
    except TABLE_ERRORS as error:
        raise MagnetError(path, expected=expected, found=str(error)[:300], remedy=remedy) from error


def content(path: Path, *, expected: str, remedy: str) -> bytes:
    """Read a file, unpacked where its name ends with .gz; one that is damaged, or a bomb, is an error."""
    if path.suffix != ".gz":
        with readable(path, expected=expected, remedy=remedy):
            return path.read_bytes()
    most = max(SMALL_BYTES, MOST_PER_PACKED * path.stat().st_size)
    pieces, size = [], 0
    try:
        with gzip.open(path, "rb") as file:
            while size <= most and (piece := file.read(PIECE_BYTES)):
                pieces.append(piece)
                size += len(piece)
    except (OSError, EOFError, zlib.error) as error:
        raise MagnetError(path, expected=expected, found=str(error), remedy=remedy) from error
    if size > most:
        raise MagnetError(path, expected=expected, found=f"more than {most >> 20} MiB in it", remedy=remedy)
    return b"".join(pieces)


def read_table(path: Path, *, expected: str, remedy: str, **options: Any) -> pl.DataFrame:
    """Read a CSV or TSV file by `polars.read_csv` with these options."""
    return parse_table(
        path, content(path, expected=expected, remedy=remedy), expected=expected, remedy=remedy, **options
    )


def parse_table(path: Path, text: bytes, *, expected: str, remedy: str, **options: Any) -> pl.DataFrame:
    """Read the text of a CSV or TSV file, which lies at `path`, by `polars.read_csv` with these options."""
    columns = text[: text.find(b"\n") + 1 or len(text)].count(str(options.get("separator", ",")).encode()) + 1
    if columns > MOST_COLUMNS:
        raise MagnetError(path, expected=expected, found=f"{columns:,} columns", remedy=remedy)
    with readable(path, expected=expected, remedy=remedy):
        return pl.read_csv(BytesIO(text), **options)


def check_parquet(path: Path, columns: Sequence[str], *, expected: str, remedy: str) -> None:
    """Raise `MagnetError` unless the columns of a parquet file, named in lower case, can be read."""
    size = path.stat().st_size
    confined(
        look_at_parquet,
        str(path.absolute()),
        list(columns),
        where=path,
        expected=expected,
        remedy=remedy,
        seconds=8 + size // (5 << 20),
        max_bytes=(2 << 30) + 8 * size,
    )


def look_at_parquet(path: str, columns: Sequence[str]) -> None:
    """Read columns of a parquet file to the end; what cannot be read or kept is a ValueError. Runs within limits."""
    try:
        table = pl.scan_parquet(path)
        schema = {name.lower(): (name, dtype) for name, dtype in table.collect_schema().items()}
        rows = table.select(pl.len()).collect(engine="streaming").item()
        if rows > max(MOST_ROWS, Path(path).stat().st_size):
            raise ValueError(f"{rows:,} rows")
        wanted = {name: schema[name] for name in columns if name in schema}  # its reader says which are missing
        nested = [f"column '{name}' of type {dtype}" for name, dtype in wanted.values() if dtype.is_nested()]
        if nested:
            raise ValueError(nested[0])
        texts = {name for name, (_, dtype) in wanted.items() if dtype in TEXTS}
        largest = [_largest(column, dtype).alias(name) for name, (column, dtype) in wanted.items()]
        found = table.select(largest).collect(engine="streaming").row(0, named=True) if largest else {}
    except pl.exceptions.PolarsError as error:
        raise ValueError(str(error)) from error
    for name in texts:
        if (found[name] or 0) > 4 * LONGEST:
            raise ValueError(f"a text of {found[name]:,} bytes in column '{name}'")


def _largest(name: str, dtype: pl.DataType) -> pl.Expr:
    """Largest value of a column, or most bytes of a text."""
    column = pl.col(name)
    if dtype == pl.Binary:
        column = column.bin.size()
    elif dtype in TEXTS:
        column = column.cast(pl.String).str.len_bytes()
    return column.max()

"""Reads the files of a result; a folder that is no result, or is unfinished, is an error of one line.

In: a folder. Out: parsed files; a training as `run.json` tells it.
"""

import math
import tomllib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from magnet_core.errors import MagnetError
from magnet_core.settings.toml_files import parse_toml, toml_text
from train.learning.choice import kept_in_words
from train.places import CELL, RUN, read_result

# E epochs


@dataclass(frozen=True)
class TrainingHistory:
    """How a training in epochs went.

    losses      mean loss of each epoch (E,), NaN where it is unknown; of the training whose weights were kept
    scores      PCC per gene on what was held out, after each epoch; empty where nothing was
    kept_epoch  the epoch (from 1) whose weights were kept
    kept        the same in words, and why
    """

    losses: Sequence[float]
    scores: Sequence[float]
    kept_epoch: int
    kept: str


def read_json(path: Path, keys: Sequence[str] = ()) -> dict[str, Any]:
    """Read an object that has these keys from a JSON file of a result, whose checksum is compared."""
    _check(path)
    return read_result(path, keys)


def read_csv(path: Path, columns: Sequence[str]) -> list[dict[str, str]]:
    """Rows of a CSV file that has these columns, all of them text; empty where there is nothing."""
    _check(path)
    try:
        table = pl.read_csv(path, infer_schema=False)
    except (pl.exceptions.PolarsError, OSError) as error:
        raise MagnetError(path, expected="a table", found=str(error), remedy="run its command again") from error
    _check_names(path, columns, table.columns)
    return table.fill_null("").to_dicts()


def read_table(path: Path, columns: Sequence[str]) -> pl.DataFrame:
    """Read a parquet file that has these columns, or no column at all where nothing was computed."""
    _check(path)
    try:
        table = pl.read_parquet(path)
    except (pl.exceptions.PolarsError, OSError) as error:
        raise MagnetError(path, expected="a parquet file", found=str(error), remedy="run its command again") from error
    if table.columns:
        _check_names(path, columns, table.columns)
    return table


def read_training(folder: Path) -> TrainingHistory | None:
    """Read how the training in a folder went; None where the folder is gone or records no losses."""
    told: Mapping[str, Any] = {}
    if (folder / CELL).is_file():
        told = table_of(read_json(folder / CELL).get("training"))
    if not told and (folder / RUN).is_file():  # of MagNet, before cells recorded it
        told = read_json(folder / RUN)
    if not told.get("losses"):
        return None
    losses, scores = (with_nan(told.get(name, [])) for name in ("losses", "validation_scores"))
    return TrainingHistory(losses, scores, told.get("kept_epoch", 0), kept_in_words(told))


def table_of(value: object) -> Mapping[str, Any]:
    """Return an object of JSON as it is; anything else, null above all, has nothing in it."""
    return value if isinstance(value, dict) else {}


def with_nan(values: Sequence[float | None]) -> list[float]:
    """Return the values with NaN for JSON's null."""
    return [math.nan if value is None else float(value) for value in values]


def number_of(text: str) -> float:
    """Read a number of a CSV file; NaN where the field is empty."""
    return float(text) if text else math.nan


def read_toml_text(path: Path) -> str:
    """The text of a TOML file, checked to be one."""
    _check(path)
    text, remedy = toml_text(path, option=str(path)), "run its command again"
    try:
        parse_toml(text, where=str(path), remedy=remedy)
    except tomllib.TOMLDecodeError as error:
        raise MagnetError(path, expected="TOML", found=str(error), remedy=remedy) from error
    return text


def _text(path: Path) -> str:
    _check(path)
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise MagnetError(path, expected="UTF-8 text", found=str(error), remedy="run its command again") from error


def _check_names(path: Path, names: Sequence[str], present: Collection[str]) -> None:
    if missing := [name for name in names if name not in present]:
        raise MagnetError(
            path, expected=", ".join(names), found=f"no {', '.join(missing)}", remedy="run its command again"
        )


def _check(path: Path) -> None:
    if not path.is_file():
        raise MagnetError(
            path.parent,
            expected=f"a finished result with {path.name}",
            found="no such file",
            remedy="give the command that made the folder again: it goes on where it was stopped",
        )

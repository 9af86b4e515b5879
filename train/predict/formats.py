"""The formats in which a prediction is written, by the names that `train predict --format` takes.

In: a prediction, a path. Out: a file or a folder that is there whole or not at all. A further format is a further row.
What a writer needs is imported when it writes.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from magnet_core.registry import look_up

if TYPE_CHECKING:
    from train.predict.prediction import SlidePrediction

H5AD, SPATIALDATA = "h5ad", "spatialdata"


@dataclass(frozen=True)
class Format:
    """How a prediction is written.

    suffix   what the name of the file ends with
    write    writes a prediction to a path
    require  raises `MissingExtraError` where a package is not installed that `write` needs
    """

    suffix: str
    write: "Callable[[SlidePrediction, Path], None]"
    require: Callable[[], None] = lambda: None


def _write_h5ad(prediction: "SlidePrediction", path: Path) -> None:
    from train.predict.h5ad import as_anndata, write_h5ad

    write_h5ad(as_anndata(prediction), path)


def _write_spatialdata(prediction: "SlidePrediction", path: Path) -> None:
    from train.predict.h5ad import as_anndata
    from train.predict.spatialdata import write_spatialdata

    write_spatialdata(as_anndata(prediction), path)


def _require_spatialdata() -> None:
    from train.predict.spatialdata import require_spatialdata

    require_spatialdata()


FORMATS: dict[str, Format] = {
    H5AD: Format(".h5ad", _write_h5ad),
    SPATIALDATA: Format(".zarr", _write_spatialdata, _require_spatialdata),
}


def find_format(name: str) -> Format:
    """Return the format of a name; one that is not in the table is an error."""
    return look_up(FORMATS, name, where="--format")

"""The formats in which a prediction is written, by the names that `train predict --format` takes.

In: a prediction, a path. Out: a file or a folder that is there whole or not at all. A further format is a further row.
What a writer needs is imported when it writes.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from magnet_core.registry import look_up
from train.predict.drawing import Drawing

if TYPE_CHECKING:
    from train.predict.prediction import SlidePrediction

H5AD, SPATIALDATA, OME_TIFF, GEOJSON, PARQUET = "h5ad", "spatialdata", "ome-tiff", "geojson", "parquet"


@dataclass(frozen=True)
class Format:
    """How a prediction is written.

    suffix   what the name of the file ends with
    write    writes a prediction to a path; `Drawing` says what a map shows
    is_map   whether it shows genes that have to be named
    require  raises `MissingExtraError` where a package is not installed that `write` needs
    """

    suffix: str
    write: "Callable[[SlidePrediction, Path, Drawing], None]"
    is_map: bool = False
    require: Callable[[], None] = lambda: None


def _write_h5ad(prediction: "SlidePrediction", path: Path, _: Drawing) -> None:
    from train.predict.h5ad import as_anndata, write_h5ad

    write_h5ad(as_anndata(prediction), path)


def _write_spatialdata(prediction: "SlidePrediction", path: Path, _: Drawing) -> None:
    from train.predict.spatialdata import write_spatialdata

    write_spatialdata(prediction, path)


def _require_spatialdata() -> None:
    from train.predict.spatialdata import require_spatialdata

    require_spatialdata()


def _write_ome_tiff(prediction: "SlidePrediction", path: Path, drawing: Drawing) -> None:
    from train.predict.ome_tiff import write_ome_tiff

    write_ome_tiff(prediction, path, drawing)


def _write_geojson(prediction: "SlidePrediction", path: Path, drawing: Drawing) -> None:
    from train.predict.geojson import write_geojson

    write_geojson(prediction, path, drawing)


def _write_parquet(prediction: "SlidePrediction", path: Path, _: Drawing) -> None:
    from train.predict.parquet import write_parquet

    write_parquet(prediction, path)


FORMATS: dict[str, Format] = {
    H5AD: Format(".h5ad", _write_h5ad),
    SPATIALDATA: Format(".zarr", _write_spatialdata, require=_require_spatialdata),
    OME_TIFF: Format(".ome.tif", _write_ome_tiff, is_map=True),
    GEOJSON: Format(".geojson", _write_geojson, is_map=True),
    PARQUET: Format(".parquet", _write_parquet),
}


def find_format(name: str) -> Format:
    """Return the format of a name; one that is not in the table is an error."""
    return look_up(FORMATS, name, where="--format")

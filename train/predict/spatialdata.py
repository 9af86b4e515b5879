"""A prediction as SpatialData: the table of `train.predict.h5ad`, and its bins as squares, in full-resolution pixels.

In: AnnData with one slide in `uns['spatial']`. Out: a .zarr folder with the shapes `<slide_id>_bins`, the table `table`
that annotates them, and the coordinate system `<slide_id>`, as spatialdata-io names them. Needs the extra `interop`.
"""

import shutil
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from magnet_core.errors import MissingExtraError

# N rows

_CORNERS = np.array([[-1, -1], [1, -1], [1, 1], [-1, 1], [-1, -1]]) / 2  # of a square of side 1, closed

if TYPE_CHECKING:
    from anndata import AnnData


def require_spatialdata() -> None:
    """Raise `MissingExtraError` where spatialdata is not installed."""
    try:
        import spatialdata  # noqa: F401
    except ImportError as error:
        raise MissingExtraError("--spatialdata", package="spatialdata", extra="interop") from error


def write_spatialdata(table: "AnnData", path: Path) -> None:
    """Write the folder beside its place and move it there; the table gets the columns that link it to its squares."""
    require_spatialdata()
    from spatialdata import SpatialData
    from spatialdata.models import ShapesModel, TableModel
    from spatialdata.transformations import Identity

    ((slide_id, entry),) = table.uns["spatial"].items()
    squares = f"{slide_id}_bins"
    side_px = entry["scalefactors"]["spot_diameter_fullres"]
    corners = table.obsm["spatial"][:, None] + side_px * _CORNERS  # (N,2) -> (N,5,2)
    rings = np.arange(0, 5 * len(table) + 1, 5), np.arange(len(table) + 1)
    shapes = ShapesModel.parse(
        corners.reshape(-1, 2), geometry=3, offsets=rings, index=table.obs_names, transformations={slide_id: Identity()}
    )
    table.obs["region"] = squares
    table.obs["barcode"] = table.obs_names
    table.obs["region"] = table.obs["region"].astype("category")
    linked = TableModel.parse(table, region=squares, region_key="region", instance_key="barcode")

    partial = path.with_name(f"{path.name}.partial")
    path.parent.mkdir(parents=True, exist_ok=True)
    shutil.rmtree(partial, ignore_errors=True)
    with warnings.catch_warnings(action="ignore", category=UserWarning):  # of zarr, on its own next release
        SpatialData(shapes={squares: shapes}, tables={"table": linked}).write(partial)
    if path.exists():
        shutil.rmtree(path)
    partial.replace(path)

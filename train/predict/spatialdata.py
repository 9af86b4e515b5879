"""A prediction as SpatialData, laid out as `spatialdata_io` reads a slide, so that programs take both for the same.

In: a prediction. Out: a .zarr folder. Of bins, as `spatialdata_io.visium_hd` names them (here of 8 µm):

    shapes  <id>_square_008um         a square each, index `location_id`
    tables  square_008um              annotates them: region_key `region`, instance_key `location_id`
    labels  <id>_square_008um_labels  the same bins as pixels of their lattice, where barcodes tell one
    tables  square_008um_labels       annotates those: instance_key `relabeled_location_id`, as 0 is the background

Of spots, as `spatialdata_io.visium` names them: shapes `<id>`, circles; tables `table`, instance_key `spot_id`. Where
there is a picture: images `<id>_hires_image` and `<id>_lowres_image`. Coordinate systems: `<id>`, pixels of the
full-resolution image, and `<id>_downscaled_hires` and `_lowres`, pixels of those images. Needs the extra `interop`.
"""

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from magnet_core.errors import MissingExtraError
from magnet_core.files import replacing_folder
from magnet_core.levels import SPOT
from train.data.lattice import Lattice, lattice_of
from train.predict.h5ad import as_anndata
from train.predict.prediction import SlidePrediction
from train.predict.thumbnails import Thumbnail, thumbnails

# N rows, h × w pixels of an image, H × W cells of the lattice

_CORNERS = np.array([[-1, -1], [1, -1], [1, 1], [-1, 1], [-1, -1]]) / 2  # of a square of side 1, closed

if TYPE_CHECKING:
    from anndata import AnnData
    from spatialdata import SpatialData


def require_spatialdata() -> None:
    """Raise `MissingExtraError` where spatialdata is not installed."""
    try:
        import spatialdata  # noqa: F401
    except ImportError as error:
        raise MissingExtraError("SpatialData", package="spatialdata", extra="interop") from error


def write_spatialdata(prediction: SlidePrediction, path: Path) -> None:
    """Write the folder, whole or not at all."""
    require_spatialdata()
    elements = as_spatialdata(prediction)
    with replacing_folder(path) as partial, warnings.catch_warnings(action="ignore", category=UserWarning):
        elements.write(partial)  # zarr warns of its own next release


def as_spatialdata(prediction: SlidePrediction) -> "SpatialData":
    """Lay a prediction out; values are not copied."""
    from spatialdata import SpatialData

    slide = prediction.slide
    pictures = thumbnails(prediction.picture, mpp=prediction.mpp)
    systems = coordinate_systems(slide.slide_id, pictures)
    images = {f"{slide.slide_id}_{name}_image": image(slide.slide_id, name, each) for name, each in pictures.items()}
    if slide.fine.name == SPOT:
        shapes = {slide.slide_id: circles(prediction, systems)}
        return SpatialData(
            images=images, shapes=shapes, tables={"table": table_of(prediction, slide.slide_id, "spot_id")}
        )
    name = f"square_{slide.target.um:03d}um"
    region = f"{slide.slide_id}_{name}"
    shapes = {region: squares(prediction, systems)}
    tables, labels = {name: table_of(prediction, region, "location_id")}, {}
    if lattice := lattice_of(slide.fine.barcodes().tolist(), slide.fine.centres_um):
        labels[f"{region}_labels"] = bin_labels(lattice, systems, mpp=prediction.mpp)
        tables[f"{name}_labels"] = table_of(prediction, f"{region}_labels", "relabeled_location_id", first=1)
    return SpatialData(images=images, labels=labels, shapes=shapes, tables=tables)


def coordinate_systems(slide_id: str, pictures: Mapping[str, Thumbnail]) -> dict[str, float]:
    """Return the coordinate systems by name: how many of their pixels are as long as one of the image."""
    return {slide_id: 1.0} | {f"{slide_id}_downscaled_{name}": each.scale for name, each in pictures.items()}


def table_of(prediction: SlidePrediction, region: str, key: str, *, first: int = 0) -> "AnnData":
    """Return a table that annotates the instances of a region, which are numbered from `first` in the order of rows."""
    from spatialdata.models import TableModel

    table = as_anndata(prediction)
    del table.uns["spatial"]  # what it says is in the images and the coordinate systems
    table.obs[key] = np.arange(first, first + len(table))
    table.obs["region"] = region
    table.obs["region"] = table.obs["region"].astype("category")
    return TableModel.parse(table, region=region, region_key="region", instance_key=key)


def squares(prediction: SlidePrediction, systems: Mapping[str, float]) -> Any:
    """Return a square for each bin, as a table of shapes."""
    from pandas import RangeIndex
    from spatialdata.models import ShapesModel

    num = len(prediction.values)
    corners = prediction.centres_px[:, None] + prediction.side_um / prediction.mpp * _CORNERS  # (N,2) -> (N,5,2)
    return ShapesModel.parse(
        corners.reshape(-1, 2),
        geometry=3,  # polygons, each of one ring
        offsets=(np.arange(0, 5 * num + 1, 5), np.arange(num + 1)),
        index=RangeIndex(num, name="location_id"),
        transformations=_scaled(np.eye(3), systems),
    )


def circles(prediction: SlidePrediction, systems: Mapping[str, float]) -> Any:
    """Return a circle for each spot, as a table of shapes."""
    from pandas import RangeIndex
    from spatialdata.models import ShapesModel

    return ShapesModel.parse(
        prediction.centres_px,
        geometry=0,
        radius=prediction.side_um / prediction.mpp / 2,
        index=RangeIndex(len(prediction.values), name="spot_id"),
        transformations=_scaled(np.eye(3), systems),
    )


def bin_labels(lattice: Lattice, systems: Mapping[str, float], *, mpp: float) -> Any:
    """Return the lattice as an image of labels (H, W): a pixel a bin, numbered from 1 in the order of rows, 0 of none.

    The middle of a pixel is at half a step, as SpatialData has it.
    """
    from spatialdata.models import Labels2DModel

    numbers = np.zeros(lattice.shape, np.uint32)
    numbers[tuple(lattice.cells.T)] = np.arange(1, len(lattice.cells) + 1)
    to_middle = np.array([[1, 0, -0.5], [0, 1, -0.5], [0, 0, 1]])
    to_px = np.vstack([lattice.to_um / mpp, [0, 0, 1]]) @ to_middle
    return Labels2DModel.parse(numbers, dims=("y", "x"), transformations=_scaled(to_px, systems))


def image(slide_id: str, name: str, picture: Thumbnail) -> Any:
    """Return a picture as an image (3, h, w), with its way to its own pixels and to those of the full resolution."""
    from spatialdata.models import Image2DModel
    from spatialdata.transformations import Identity, Scale

    to_full = Scale(np.full(2, 1 / picture.scale), axes=("x", "y"))
    return Image2DModel.parse(
        np.ascontiguousarray(picture.pixels.transpose(2, 0, 1)),  # (h,w,3) -> (3,h,w)
        dims=("c", "y", "x"),
        c_coords=["r", "g", "b"],
        transformations={f"{slide_id}_downscaled_{name}": Identity(), slide_id: to_full},
    )


def _scaled(to_px: np.ndarray, systems: Mapping[str, float]) -> dict[str, Any]:
    """Return, by coordinate system, the way there of what `to_px` (3, 3) takes to pixels of the full resolution."""
    from spatialdata.transformations import Affine, Identity, Scale

    ways = {}
    for name, scale in systems.items():
        if not np.array_equal(to_px, np.eye(3)):
            ways[name] = Affine(np.diag([scale, scale, 1]) @ to_px, input_axes=("x", "y"), output_axes=("x", "y"))
        else:
            ways[name] = Identity() if scale == 1 else Scale(np.full(2, scale), axes=("x", "y"))
    return ways

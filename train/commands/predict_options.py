"""Options of `train predict`, in the panels of its help. Imports nothing that takes long."""

from pathlib import Path
from typing import Annotated

import typer

from magnet_core.errors import MagnetError

FROM_STORE, FROM_IMAGES = "Slides of a store", "Images that are in no store"
ONE_OR_ALL = (1, 8)

RunsArgument = Annotated[
    list[Path],
    typer.Argument(metavar="RUN", help="Folder of 'train fit', or of a cell of MagNet; with --ensemble several."),
]
SlideOption = Annotated[
    list[str] | None,
    typer.Option(
        help="Slide to predict; may be repeated; 'all': every one of the store. Of --samples: these alone.",
        rich_help_panel=FROM_STORE,
    ),
]
StoreOption = Annotated[
    Path | None, typer.Option(help="Store with the slides; left out: the run's own.", rich_help_panel=FROM_STORE)
]
ImageOption = Annotated[
    list[Path] | None,
    typer.Option(help="Image of a slide to predict; may be repeated.", rich_help_panel=FROM_IMAGES),
]
SamplesOption = Annotated[
    Path | None,
    typer.Option(help="Sheet of many: slide_id,image,counts,platform,mpp,patient.", rich_help_panel=FROM_IMAGES),
]
MppOption = Annotated[
    str,
    typer.Option(
        help="µm/px of the images, where they do not state it; 0.5! whatever they state.", rich_help_panel=FROM_IMAGES
    ),
]
TissueOption = Annotated[
    Path | None,
    typer.Option(
        help="Where the tissue of the image is: GeoJSON in its pixels, or a PNG of a mask; left out: by colour.",
        rich_help_panel=FROM_IMAGES,
    ),
]
LikeOption = Annotated[
    Path | None,
    typer.Option(
        help="Space Ranger's outs: predict its bins in tissue, by their barcodes; with --measured their counts too.",
        rich_help_panel=FROM_IMAGES,
    ),
]
BatchSizeOption = Annotated[
    int, typer.Option(min=1, max=4096, help="Spot patches encoded at a time.", rich_help_panel=FROM_IMAGES)
]
WorkersOption = Annotated[
    int, typer.Option(min=1, max=256, help="Threads that decode an image.", rich_help_panel=FROM_IMAGES)
]
EnsembleOption = Annotated[
    bool,
    typer.Option("--ensemble", help="The mean of several runs, or of all folds of a table, and the sd between."),
]
ViewsOption = Annotated[int, typer.Option(help="8: the mean over all symmetries of a patch; 8 times the work.")]
OutOption = Annotated[Path | None, typer.Option(help="The file; left out: RUN/predictions/SLIDE.h5ad.")]
GenesOption = Annotated[str | None, typer.Option(help="Keep these genes only, such as SGPP1,DPEP1.")]
MeasuredOption = Annotated[
    bool, typer.Option("--measured", help="Add what was measured as a layer, and say how well it agrees.")
]
FormatOption = Annotated[
    str,
    typer.Option(
        "--format", help="Files to write, such as h5ad,parquet: h5ad, spatialdata, ome-tiff, geojson, parquet."
    ),
]
DrawOption = Annotated[str | None, typer.Option(help="Genes that ome-tiff and geojson show, such as EPCAM,CD3E.")]
AboveOption = Annotated[
    str, typer.Option(help="Regions of geojson lie above this value, or above that of a share of rows.")
]
ZarrOption = Annotated[
    bool, typer.Option("--spatialdata", help="A SpatialData .zarr too, as with --format h5ad,spatialdata.")
]
OverwriteOption = Annotated[bool, typer.Option("--overwrite", help="Replace files that are there.")]
DeviceOption = Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")]


def check_source(slides: list[str], images: list[Path], samples: Path | None, mpp: str) -> None:
    """Refuse what does not say, in one way, which slides are meant."""
    named = {"--slide": slides and samples is None, "--image": images, "--samples": samples}
    given = [name for name, value in named.items() if value]
    if len(given) != 1:
        raise MagnetError(
            "train predict",
            expected="--slide (of a store), --image or --samples (of images that are in none)",
            found=" and ".join(given) or "none of them",
            remedy="say which slides to predict",
        )
    if mpp and not images:
        expected, found = "it with --image", f"it with {given[0]}"
        remedy = "write it into the sheet's column 'mpp'" if samples else "leave it out: the store knows it"
        raise MagnetError("--mpp", expected=expected, found=found, remedy=remedy)


def check_place(images: list[Path], tissue: Path | None, like: Path | None) -> None:
    """Refuse to be told in two ways, or for several images, which places are meant."""
    option = "--tissue" if tissue else "--like"
    if tissue and like:
        found, remedy = "both", "leave one of them out"
        raise MagnetError(option, expected="--tissue or --like", found=found, remedy=remedy)
    if (tissue or like) and len(images) != 1:
        found, remedy = f"{len(images)}", "predict its slide alone"
        raise MagnetError(option, expected="one --image", found=found, remedy=remedy)


def check_views(views: int) -> None:
    """Refuse another number of views than 1 and 8."""
    if views not in ONE_OR_ALL:
        raise MagnetError("--views", expected="1 or 8", found=str(views), remedy="choose one of them")

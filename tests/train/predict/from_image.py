"""An image that is in no store, the same in one, and runs that predict both."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import anndata
import tifffile
import torch
from typer.testing import CliRunner, Result

from cache.store import Store
from extract.config import EmbeddingConfig, GeometryConfig, RunConfig, Stain
from extract.pipeline import run as extract
from magnet_core.records import Genes
from magnet_core.units import WORKING_MPP
from tests.train.conftest import BACKBONE
from tests.train.setting import NUM_GENES, config, parts
from train.cli import app
from train.learning.stage_one import StageOne
from train.learning.trained_run import TrainedRun, save_run

SIDE_PX = 640  # 160 µm: 400 bins


@dataclass(frozen=True)
class Setting:
    """An image in no store, the same in one by `extract run`, and runs that were not trained, by the encoder's mode."""

    image: Path
    store: Path
    runs: Mapping[str, Path]


def make_setting(small_store: Store, folder: Path) -> Setting:
    """Crop an image, extract it, and leave runs that were not trained."""
    whole = tifffile.imread(small_store.root.parent / "data/S2/S2_tissue_image.btf")
    image = folder / "new slide.tif"
    tifffile.imwrite(image, whole[400 : 400 + SIDE_PX, 400 : 400 + SIDE_PX])
    store = extracted(image, folder)
    runs = {mode: untrained(small_store, folder / mode, f"encoder.mode={mode}") for mode in ("frozen", "full")}
    return Setting(image, store, runs)


def extracted(image: Path, folder: Path, *, stain: Stain = "as_is", working_mpp: float = WORKING_MPP) -> Path:
    """The store of an image, every bin of it."""
    sheet = folder / "samples.csv"
    sheet.write_text(f"slide_id,image,mpp\nnew-slide,{image},0.25\n")
    two_steps = RunConfig(
        samples=sheet,
        store=folder / "store",
        geometry=GeometryConfig(targets=(8,), sampling="all"),
        embedding=EmbeddingConfig(backbone=BACKBONE, weights="random", token_grid=2),
        stain=stain,
        working_mpp=working_mpp,
    )
    assert extract(two_steps).failed == {}
    return two_steps.store


def untrained(store: Store, folder: Path, *settings: str, seed: int = 0, genes: slice = slice(NUM_GENES)) -> Path:
    """A run with drawn weights, as training leaves it; where its encoder is trained, its weights are moved a little."""
    folder.mkdir()
    slide, predictor = parts(store, config(store, folder, *settings))
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for values in predictor.parameters():
            values.add_(0.02 * torch.randn(values.shape, generator=generator))
    made = StageOne.of(slide.fine.geometry_header["settings"], slide.features_header)
    panel = Genes(slide.genes.ids[genes], slide.genes.names[genes])
    digest = slide.features_header["settings_digest"]
    save_run(folder, TrainedRun(config(store, folder, *settings), panel, predictor, digest, made), extra={})
    return folder


def predict(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["predict", *map(str, arguments)], catch_exceptions=False)


def read(path: Path) -> anndata.AnnData:
    return anndata.read_h5ad(path)

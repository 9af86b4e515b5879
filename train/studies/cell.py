"""One cell of the benchmark: one system on one fold, computed once, kept on disk, shared by every table that needs it.

In: a `Cell`. Out: its folder, named after all that decides its content:

    predictions/<slide>.npy   float32 (N, P), the test slides' fine rows in the order of the store
    blocks/<slide>.npz        sums from which metrics and their intervals follow, see `magnet_core.resampling`
    genes.parquet             metrics of each test slide and gene
    cell.json                 written last: settings, fold, panel, versions; a folder without it is not finished
"""

import hashlib
import json
import time
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from cache.canonical import canonical_json
from cache.store import Store, backbone_slug, package_versions
from magnet_core.ceiling import noise_ceiling
from magnet_core.device import pick_device
from magnet_core.errors import MagnetError
from magnet_core.files import replacing, sync_below, write_json
from magnet_core.records import Genes
from magnet_core.resampling import BlockSums, block_sums, cut_into_blocks
from magnet_core.seeding import named_rng, seed_everything
from train.data.fold_sides import FoldSides
from train.data.folds import Fold
from train.data.raw_counts import read_counts
from train.data.sampler import along_curve
from train.evaluation.scores import genes_table, score, write_genes
from train.evaluation.system_names import MAGNET, NOISE_CEILING, TITLES
from train.learning.checkpoint import forget
from train.learning.run_folder import GENES
from train.learning.setting import Setting
from train.settings.build import NEUTRAL, as_plain
from train.settings.fit import FitConfig
from train.systems.base import System
from train.systems.magnet import MagNetSystem
from train.systems.table import PLAIN, RivalsConfig, build_rival

# N fine rows of a slide, P panel genes

VERSION = 2  # to be raised when equal settings no longer give equal cells
FINISHED = "cell.json"
# What is not in a cell's name: where it lies, and what is there in another form (the slides of the fold, the features).
ELSEWHERE = {*NEUTRAL, "name", "runs", "fold", "baselines", "split", "data.store"}


@dataclass(frozen=True)
class Cell:
    """One system on one fold. A rival reads of `config` what concerns data, fold, seed and encoder."""

    system: str
    config: FitConfig
    fold: Fold
    rivals: RivalsConfig

    @property
    def title(self) -> str:
        """The cell in a few words, for bars and messages."""
        return f"{TITLES.get(self.system, self.system)}, {self.config.data.target} µm, fold {self.fold.index}"

    @property
    def finetune(self) -> bool:
        """Whether the encoder of the fine patches is trained."""
        return self.config.encoder.mode != "frozen"

    def settings(self) -> dict[str, Any]:
        """All settings that decide what the cell holds."""
        settings = _without(as_plain(self.config), ELSEWHERE)
        if self.system == MAGNET:
            return settings
        if self.system in PLAIN or self.system == NOISE_CEILING:
            return {"data": settings["data"]}
        own = {"data": settings["data"], "seed": settings["seed"], "rival": as_plain(getattr(self.rivals, self.system))}
        return own | ({"encoder": settings["encoder"], "compute": settings["compute"]} if self.finetune else {})

    def folder(self, cells: Path, store: Store) -> Path:
        """Its folder below `cells`; its name ends with a digest of the settings, the fold and the stored features."""
        data = self.config.data
        features = {
            slide_id: (
                store.geometry(slide_id).header.get("digest"),
                store.features(slide_id, data.backbone, data.settings_digest or None).header["settings_digest"],
            )
            for slide_id in (*self.fold.train, *self.fold.test)
        }
        content = {
            "version": VERSION,
            "settings": self.settings(),
            "train": self.fold.train,
            "test": self.fold.test,
            "features": features,
        }
        digest = hashlib.sha256(canonical_json(content).encode()).hexdigest()[:12]
        return cells / f"{self.system}-{data.target}um-{backbone_slug(data.backbone)}-fold{self.fold.index}-{digest}"


@dataclass(frozen=True)
class CellResult:
    """What a finished cell holds: metrics by gene and slide, and the sums of each test slide (none of a ceiling).

    patients  of the test slides, by slide id
    """

    cell: Cell
    folder: Path
    genes: pl.DataFrame
    blocks: Mapping[str, BlockSums]
    patients: Mapping[str, str]
    panel: Genes

    def prediction(self, slide_id: str) -> np.ndarray:
        """Prediction (N, P) float32 of a test slide, mapped from its file."""
        return np.load(prediction_path(self.folder, slide_id), mmap_mode="r")


def compute(cell: Cell, folder: Path, sides: FoldSides) -> None:
    """Fit the system on the training side, predict the test slides, then read their labels, compare, and keep it."""
    started = time.monotonic()
    seed_everything(cell.config.seed)
    panel = sides.training.panel
    folder.mkdir(parents=True, exist_ok=True)
    if cell.system == NOISE_CEILING:
        write_genes(folder / GENES, ceilings(sides))
    else:
        system = build_system(cell, folder)
        system.fit(sides.training)
        predictions = {slide.slide_id: system.predict(slide) for slide in sides.test_slides}
        truth = sides.truth()
        for slide in sides.test_slides:
            prediction = predictions[slide.slide_id]
            _save_array(prediction_path(folder, slide.slide_id), prediction.astype(np.float32))
            block_of = cut_into_blocks(along_curve(slide.fine.centres_um))
            sums = block_sums(prediction, truth[slide.slide_id], block_of)
            sums.save(folder / "blocks" / f"{slide.slide_id}.npz")
        write_genes(folder / GENES, genes_table({cell.system: score(predictions, truth)}, panel))
    description = {
        "system": cell.system,
        "settings": cell.settings(),
        "fold": {"index": cell.fold.index, "train": list(cell.fold.train), "test": list(cell.fold.test)},
        "patients": {slide.slide_id: slide.patient for slide in sides.test_slides},
        "panel": {"id": panel.ids.tolist(), "name": panel.names.tolist()},
        "versions": package_versions(),
        "seconds": round(time.monotonic() - started, 1),
    }
    sync_below(folder)
    write_json(folder / FINISHED, description)
    forget(folder)


def read(cell: Cell, folder: Path) -> CellResult:
    """Read a finished cell; one whose files are damaged or lost is an error that says how to have it again."""
    try:
        description = json.loads((folder / FINISHED).read_text(encoding="utf-8"))
        panel = Genes(np.array(description["panel"]["id"]), np.array(description["panel"]["name"]))
        names = () if cell.system == NOISE_CEILING else cell.fold.test
        blocks = {name: BlockSums.load(folder / "blocks" / f"{name}.npz") for name in names}
        genes = pl.read_parquet(folder / GENES)
        for name in names:
            np.load(prediction_path(folder, name), mmap_mode="r")
    except (OSError, ValueError, KeyError, zipfile.BadZipFile, pl.exceptions.PolarsError) as error:
        raise MagnetError(
            folder,
            expected="a finished cell, whole",
            found=f"{type(error).__name__}: {str(error).partition(chr(10))[0]}",
            remedy="delete the folder, and give the command again",
        ) from error
    return CellResult(cell, folder, genes, blocks, description["patients"], panel)


def prediction_path(folder: Path, slide_id: str) -> Path:
    """Where a cell keeps its prediction of a test slide."""
    return folder / "predictions" / f"{slide_id}.npy"


def build_system(cell: Cell, folder: Path) -> System:
    """Build the cell's system; what it needs to go on after a stop, and MagNet its run, are kept in the folder."""
    config = cell.config
    if cell.system == MAGNET:
        return MagNetSystem(config, folder, cell.fold, say=lambda _: None)  # not once for each of many cells
    device = pick_device(config.device)
    setting = Setting(config.seed, device, config.compute, finetune=cell.finetune, title=cell.title, folder=folder)
    return build_rival(cell.system, cell.rivals, setting)


def ceilings(sides: FoldSides) -> pl.DataFrame:
    """The noise ceiling of each gene on each test slide, in the place of a system's correlation."""
    panel, normalise = sides.training.panel, sides.training.normalise
    tables = []
    for slide in sides.test_slides:
        counts, library = read_counts(slide, panel, normalise)
        if normalise.library == "none":  # the labels know of none; what is dealt out is the panel alone
            library = np.asarray(counts.sum(axis=1)).ravel()
        ceiling = noise_ceiling(counts, library, normalise, named_rng(0, "ceiling", slide.slide_id))
        tables.append(_ceiling_table(slide.slide_id, panel, ceiling))
    return pl.concat(tables)


def _ceiling_table(slide_id: str, panel: Genes, ceiling: np.ndarray) -> pl.DataFrame:
    return pl.DataFrame(
        {
            "system": NOISE_CEILING,
            "slide_id": slide_id,
            "gene_id": panel.ids,
            "gene_name": panel.names,
            "mse": np.nan,
            "mae": np.nan,
            "pcc": ceiling,
        }
    )


def _without(settings: dict[str, Any], names: set[str], prefix: str = "") -> dict[str, Any]:
    """Leave out named settings, at every depth."""
    return {
        key: _without(value, names, f"{prefix}{key}.") if isinstance(value, dict) else value
        for key, value in settings.items()
        if f"{prefix}{key}" not in names
    }


def _save_array(path: Path, array: np.ndarray) -> None:
    with replacing(path) as partial, partial.open("wb") as file:
        np.save(file, array)

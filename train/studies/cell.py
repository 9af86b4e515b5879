"""One cell of the benchmark: one system on one fold, computed once, kept on disk, shared by every table that needs it.

In: a `Cell`. Out: its folder, named after all that decides its content:

    predictions/<slide>.npy   float32 (N, P), the test slides' fine rows in the order of the store
    run.json, model.safetensors  MagNet's weights, and all that is needed to use them; not of an ensemble
    blocks/<slide>.npz        sums from which metrics and their intervals follow, see `magnet_core.resampling`
    genes.parquet             metrics of each test slide and gene
    cell.json                 written last: settings, fold, panel, versions, checksums of the files above and of
                              itself; a folder without it is not finished
"""

import zipfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from cache.fingerprint import digest
from cache.index import patient_of
from cache.store import Store, backbone_slug
from magnet_core.checksums import FILES, check_files, file_checksums
from magnet_core.errors import MagnetError
from magnet_core.records import Genes
from magnet_core.resampling import BlockSums
from magnet_core.sealed import write_sealed
from magnet_core.settings import differing, flat, without
from train.data.folds import Fold
from train.evaluation.scores import GENES
from train.places import CELL, anew, read_result
from train.settings.fit import BEFORE, OUTPUT_NEUTRAL, FinetuneConfig, FitConfig, without_later
from train.systems.table import MAGNET, NOISE_CEILING, RivalsConfig, plain_systems, title_of, version_of

# N fine rows of a slide, P panel genes

NAME = "name"  # of its folder, in a cell's description: two folders that were exchanged are told of
VERSION = 2  # raise it when equal settings no longer give equal cells; for one system alone, its row's `version`
# Settings of rivals that came later, and what was meant before, as `BEFORE` has those of a fit.
LATER = {"clip_norm": 0.0, "ema": 0.0}
# Left out of a cell's name: where the cell lies, and what the name has in another form (slides of the fold, features).
ELSEWHERE = {*OUTPUT_NEUTRAL, "name", "runs", "fold", "baselines", "split", "data.store"}


@dataclass(frozen=True)
class Cell:
    """One system on one fold. A rival reads only what `config` says of data, fold, seed and encoder."""

    system: str
    config: FitConfig
    fold: Fold
    rivals: RivalsConfig

    @property
    def title(self) -> str:
        """The cell in a few words, for bars and messages."""
        return f"{title_of(self.system)}, {self.config.data.target} µm, fold {self.fold.index}"

    @property
    def said(self) -> str:
        """The title, with what MagNet is trained without, and the seed where it is another than the first.

        It is not what rivals draw by.
        """
        without = [name for name, is_there in self._blocks.items() if not is_there] if self.system == MAGNET else []
        seed = [f"seed {self.config.seed}"] if self.config.seed else []
        return ", ".join([self.title, *(f"w/o {name}" for name in without), *seed])

    @property
    def _blocks(self) -> dict[str, bool]:
        model = self.config.model
        consistency = self.config.loss.consistency
        return {"GAT": model.use_gat, "multi-resolution": model.use_multires, "consistency": consistency}

    @property
    def members(self) -> "tuple[Cell, ...]":
        """The cells, of a seed each, of which this one is the mean; none of a system that is trained once."""
        if self.config.seeds == 1 or self.system == NOISE_CEILING or self.system in plain_systems():
            return ()
        first = self.config.seed
        configs = [self.config.changed(seed=seed, seeds=1) for seed in range(first, first + self.config.seeds)]
        return tuple(replace(self, config=config) for config in configs)

    @property
    def finetune(self) -> bool:
        """Whether the encoder of the fine patches is trained."""
        return self.config.encoder.mode != "frozen"

    def settings(self, training_patients: Sequence[str]) -> dict[str, Any]:
        """All settings that decide what the cell holds; a rival's include validation only where it holds out."""
        num_patients = len(set(training_patients))
        config = self.config.meant(num_patients).changed(data={"settings_digest": ""})  # the name has the features
        elsewhere = {*ELSEWHERE, "ridge" if self.finetune else FinetuneConfig.table}
        settings = without_later(without(config.plain(), elsewhere), BEFORE)
        if self.system == MAGNET:
            return settings
        if self.system in plain_systems() or self.system == NOISE_CEILING:
            return {"data": settings["data"]}
        rival = without_later(getattr(self.rivals, self.system).plain(), LATER)
        own = {name: settings[name] for name in ("data", "seed", "seeds") if name in settings} | {"rival": rival}
        if config.validation.num_patients(num_patients) or config.validation.holds_out_few(num_patients):
            own |= {"validation": settings["validation"]}
        return own | ({"encoder": settings["encoder"], "compute": settings["compute"]} if self.finetune else {})

    def place(self, cells: Path) -> Path:
        """The cell's folder below `cells`, by what the store holds that it reads."""
        return self.folder(cells, Store(self.config.data.store))

    def folder(self, cells: Path, store: Store) -> Path:
        """The cell's folder below `cells`; its name ends with a digest of the settings, the fold and the features."""
        data = self.config.data
        features = {
            slide_id: (
                store.geometry(slide_id).header.get("digest"),
                store.features(slide_id, data.backbone, data.settings_digest or None).header["settings_digest"],
            )
            for slide_id in (*self.fold.train, *self.fold.test)
        }
        patients = {row["slide_id"]: patient_of(row) for row in store.samples() if row["slide_id"] in features}
        content = {
            "version": VERSION,
            "settings": self.settings([patients[name] for name in self.fold.train]),
            "train": self.fold.train,
            "test": self.fold.test,
            "features": features,
        }
        if (version := version_of(self.system)) > 1:  # so that cells of the first one keep their names
            content["version_of_system"] = version
        # A geometry keeps the patient it was laid with: only slides whose patient was corrected since give a new name.
        laid = {name: store.geometry(name).header.get("patient", patients[name]) for name in features}
        if corrected := {name: patients[name] for name in features if patients[name] != laid[name]}:
            content["patients"] = corrected
        backbone, ending = backbone_slug(data.backbone), digest(content)
        return cells / f"{self.system}-{data.target}um-{backbone}-fold{self.fold.index}-{ending}"


def members_of(cells: Iterable[Cell]) -> list[Cell]:
    """Return the cells of a seed each, of which some of these cells are the means, each once."""
    return list(dict.fromkeys(member for cell in cells for member in cell.members))


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
        values: np.ndarray = np.load(prediction_path(self.folder, slide_id), mmap_mode="r")
        return values


@dataclass(frozen=True)
class Results:
    """Finished cells, and the one-line faults of those that failed."""

    cells: dict[Cell, CellResult]
    faults: dict[Cell, str]


def finish(cell: Cell, folder: Path, description: Mapping[str, Any]) -> None:
    """Write the file that makes a cell's folder whole: its description, and checksums of the files it is read by."""
    files = file_checksums(folder, files_of(cell))
    write_sealed(folder / CELL, {**description, NAME: folder.name, FILES: files})


def read(cell: Cell, folder: Path) -> CellResult:
    """Read a finished cell; damaged or lost files are an error that says how to compute the cell again.

    Checksums are compared with all files, also of predictions, whose values are read from their file later.
    """
    description, remedy = read_result(folder / CELL, ("panel", "patients")), anew(folder / CELL)
    name = description.get(NAME)
    found = _other_than(cell, description) if name is None else f"'{name}'" if name != folder.name else ""
    if found:
        raise MagnetError(
            folder, expected="the cell that it is named after", found=found,
            remedy="give both folders their names, or delete this one and give the command again",
        )  # fmt: skip
    check_files(folder, files_of(cell), description.get(FILES), remedy=remedy)
    try:
        panel = Genes(np.array(description["panel"]["id"]), np.array(description["panel"]["name"]))
        blocks = {name: BlockSums.load(folder / "blocks" / f"{name}.npz") for name in tested(cell)}
        genes = pl.read_parquet(folder / GENES)
        for name in tested(cell):
            np.load(prediction_path(folder, name), mmap_mode="r")
    except (OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile, pl.exceptions.PolarsError) as error:
        raise MagnetError(
            folder,
            expected="a finished cell, whole",
            found=f"{type(error).__name__}: {str(error).partition(chr(10))[0]}",
            remedy=remedy,
        ) from error
    return CellResult(cell, folder, genes, blocks, description["patients"], panel)


def _other_than(cell: Cell, description: Mapping[str, Any]) -> str:
    """Say in what a cell of before, which does not know its name, is not the one that is sought; or nothing.

    What is held out depends on how many patients there are, which the record does not say.
    """
    fold = {"index": cell.fold.index, "train": list(cell.fold.train), "test": list(cell.fold.test)}
    sought, recorded = cell.settings(cell.fold.train), description.get("settings") or {}
    neutral = [name for name in (*flat(recorded), *flat(sought)) if name.startswith("validation.")]
    different = [name for name, value in (("system", cell.system), ("fold", fold)) if description.get(name) != value]
    different += differing(recorded, sought, neutral=neutral)
    return f"one of another {', '.join(different)}" if different else ""


def tested(cell: Cell) -> tuple[str, ...]:
    """Test slides that a cell has a prediction of; a noise ceiling predicts nothing."""
    return () if cell.system == NOISE_CEILING else cell.fold.test


def files_of(cell: Cell) -> list[str]:
    """Files that a cell is read by, beside its description, as names below its folder."""
    of_slides = [
        name for slide_id in tested(cell) for name in (f"predictions/{slide_id}.npy", f"blocks/{slide_id}.npz")
    ]
    return [*of_slides, GENES]


def prediction_path(folder: Path, slide_id: str) -> Path:
    """Where a cell keeps its prediction of a test slide."""
    return folder / "predictions" / f"{slide_id}.npy"

"""Stage two on one page: from a request to a table, by way of cells.

A cell is one system on one fold with one set of settings: fitted on the fold's training side, tested on slides it never
saw, kept on disk under a name that covers all its settings. `train fit` makes the cells of one fold, `train cv` and
`train study` those of several, and a trial of `train sweep` is a cell that is scored on slides of the training side.
A finished cell is not computed again; a cell that was stopped resumes at its last checkpoint.
"""

import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch

from cache.lock import FileLock
from cache.store import package_versions
from magnet_core.console import logger, notice, progress
from magnet_core.device import pick_device
from magnet_core.engine.local import HERE
from magnet_core.engine.shard import Shard
from magnet_core.engine.tasks import Engine, Task, shown_by
from magnet_core.environment import fault_line
from magnet_core.errors import MagnetError
from magnet_core.files import naming, remove_left, replacing, sync_below
from magnet_core.global_seeds import seed_everything
from magnet_core.ranks import ranks
from magnet_core.resampling import block_sums, cut_into_blocks
from train.data.fold_choice import choose_fold
from train.data.fold_sides import FoldSides
from train.data.folds import Fold
from train.data.sampler import along_curve
from train.data.training_side import TrainingSide, hold_out
from train.evaluation.ceilings import ceilings
from train.evaluation.scores import GENES, genes_table, score, write_genes
from train.learning.checkpoint import forget
from train.learning.choice import CHOOSING, describe_training, kept_in_words, read_choice, write_choice
from train.learning.progress import Progress
from train.learning.setting import Setting
from train.places import CELL, CELLS, MEMBERS, TABLE
from train.settings.fit import FitConfig
from train.studies.cell import Cell, CellResult, Results, finish, members_of, prediction_path, read
from train.studies.open_fold import OpenFold, data_key
from train.studies.pivotal import check_genes, pivotal_genes
from train.studies.plans import Plan, Planner
from train.studies.record import check_folder, write_record, write_table
from train.studies.settings import StudyConfig
from train.studies.summary import fold_means
from train.systems.base import System
from train.systems.magnet import MagNetSystem
from train.systems.table import MAGNET, NOISE_CEILING, build_rival, learns_in_epochs

log = logger(__name__)

BESIDE_A_FIT = ("gene_mean", "colour_ridge", "feature_ridge")


@dataclass(frozen=True)
class TableResult:
    """The folder of a table, the table as text, the cells it is made of, and the faults of those that failed."""

    folder: Path
    text: str
    cells: tuple[CellResult, ...]
    faults: tuple[str, ...]

    def cell(self, system: str = MAGNET) -> CellResult:
        """The first cell of a system."""
        return next(cell for cell in self.cells if cell.cell.system == system)

    @property
    def systems(self) -> dict[str, dict[str, float]]:
        """Metrics of the systems of a single fold, mean over its test slides, by their names."""
        names = dict.fromkeys(cell.cell.system for cell in self.cells if cell.blocks)
        return {name: fold_means(self.cell(name), "equal") for name in names}


def fit(config: FitConfig, *, fold: Fold | None = None) -> TableResult:
    """Train one fold, going on where it was stopped, and compare MagNet with the plain baselines on its test slides."""
    fold = fold or choose_fold(config)
    study = StudyConfig(fit=config)
    data = config.data
    plan = Planner(study, [fold]).baselines(
        [data.target],
        (MAGNET, *BESIDE_A_FIT) if config.baselines else (MAGNET,),
        name=config.run_name,
        title=f"Fold {fold.index}, {data.target} µm, {data.backbone}; tested on {', '.join(fold.test)}",
    )
    return make_table(plan, study, replaces=config.overwrite, raises=True)


def make_table(
    plan: Plan,
    config: StudyConfig,
    *,
    published: bool = False,
    genes: Sequence[str] = (),
    maps: bool = True,
    replaces: bool = True,
    raises: bool = False,
    engine: Engine = HERE,
) -> TableResult:
    """Compute the cells that a plan lacks and write its table; the same call goes on where it was stopped."""
    folder = check_folder(config.fit.runs, plan, config, replaces=replaces)
    pick_device(config.fit.device)  # one that is not there is told of before anything is computed
    check_genes(plan, genes)
    results = run_cells(plan.cells, config.fit.runs, engine=engine, raises=raises)
    of_rows = [cell for row in plan.rows for cell in row.cells]
    if (folder / TABLE).exists() and results.faults and not any(cell in results.cells for cell in of_rows):
        raise MagnetError(
            folder,
            expected="a table of some cells that were computed",
            found=f"none of {len(of_rows)}, the first: {next(iter(results.faults.values()))}",
            remedy="mend what the lines above say; the table that is there stays as it was",
        )
    text = write_table(folder, plan, config, results, published=published)
    if genes:
        text += pivotal_genes(plan, results, genes, folder=folder, maps=maps)
    write_record(folder, plan, config, results)
    faults = tuple(dict.fromkeys(results.faults.values()))
    return TableResult(folder, text, tuple(results.cells.values()), faults)


def make_part(plan: Plan, config: StudyConfig, shard: Shard, *, engine: Engine = HERE) -> Results:
    """Compute those cells of a plan that are of one part; the table is made by `make_table`, once all parts are."""
    pick_device(config.fit.device)
    return run_cells(plan.cells, config.fit.runs, engine=engine, shard=shard)


def run_cells(
    cells: Sequence[Cell], runs: Path, *, engine: Engine = HERE, shard: Shard | None = None, raises: bool = False
) -> Results:
    """Compute the cells that are not finished yet, and read all of them; equal cells are computed once.

    A cell that fails is reported, and the others are still computed; with `raises`, the first fault ends all. With a
    `shard`, cells of other parts are neither computed nor read.
    """
    folders = {cell: cell.place(runs / CELLS) for cell in cells}
    if shard is not None:
        of_part = set(shard.of(list(dict.fromkeys(folders.values()))))
        folders = {cell: folder for cell, folder in folders.items() if folder in of_part}
    asked = {folder: cell for cell, folder in folders.items()}
    # Members of a mean come before any mean, as tasks of their own, which several processes share out.
    members = members_of(cell for folder, cell in asked.items() if not (folder / CELL).exists())
    wanted = {cell.place(runs / CELLS): cell for cell in members} | asked
    missing = {folder: cell for folder, cell in wanted.items() if not (folder / CELL).exists()}
    if num_finished := len(wanted) - len(missing):
        notice(f"{num_finished} of {num_finished + len(missing)} cells are finished already")
    # Cells of one fold follow each other, so that a process opens it once.
    ordered = sorted(
        missing.items(), key=lambda item: (bool(item[1].members), data_key(item[1].config.data), item[1].fold.index)
    )
    faults: dict[Path, str] = {}
    tasks = [Task(cell.said, compute_one, (cell, folder, raises)) for folder, cell in ordered]
    try:
        with progress(total=len(tasks), desc="cells", unit="cell", even=False, disable=not tasks) as bar:
            for task, fault in engine.run(tasks, lost=lambda task, why: f"{task.name}: {why}", far=shown_by(bar)):
                if fault:
                    faults[task.arguments[1]] = fault
                    log.error("failed: %s", fault)
                bar.set_postfix_str(task.name, refresh=False)
                bar.update()
    finally:
        folds_of_process.cache_clear()
    results: dict[Cell, CellResult] = {}
    for cell, folder in folders.items():
        if folder in faults:
            continue
        try:
            results[cell] = read(cell, folder)
        except MagnetError as error:
            if raises:
                raise
            faults[folder] = f"{cell.said}: {in_one_line(error)}"
            log.error("failed: %s", faults[folder])
    return Results(results, {cell: faults[folder] for cell, folder in folders.items() if folder in faults})


@lru_cache(maxsize=1)
def folds_of_process() -> OpenFold:
    """The fold that this process has open for its cells."""
    return OpenFold()


def compute_one(cell: Cell, folder: Path, raises: bool) -> str:
    """Compute a cell, or wait for another command that is at it; returns its fault, or raises it if that is asked for.

    The lock keeps two writers apart: which process computes what is the engine's to say.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder.with_name(f"{folder.name}.lock"))
    with naming(folder):
        if not lock.acquire(wait=False):
            notice(f"{cell.said}: waiting for {lock.owner()}")
            lock.acquire(wait=True)
        try:
            if not (folder / CELL).exists():
                compute(cell, folder, folds_of_process().open(cell))
        except (MagnetError, MemoryError, torch.OutOfMemoryError, np.linalg.LinAlgError) as error:
            if raises:
                raise
            return f"{cell.said}: {in_one_line(error)}"
        finally:
            lock.release()
    return ""


def compute(cell: Cell, folder: Path, sides: FoldSides) -> None:
    """Fit the system on the training side, predict the test slides, then read their labels, compare, and keep it."""
    started = time.monotonic()
    seed_everything(cell.config.seed)
    folder.mkdir(parents=True, exist_ok=True)
    for below in (folder, *filter(Path.is_dir, folder.iterdir())):
        remove_left(below)
    side, panel = hold_out(sides.training, cell.config), sides.training.panel
    training: dict[str, Any] | None = None
    if cell.system == NOISE_CEILING:
        write_genes(folder / GENES, ceilings(sides, cell.system))
    else:
        if cell.members:
            predictions = mean_of_members(cell, folder.parent)
        else:
            if cell.system == MAGNET:
                ranks().agree(cell)
            system, training = fit_system(cell, folder, side)
            predictions = {slide.slide_id: system.predict(slide) for slide in sides.test_slides}
        truth = sides.truth()
        for slide in sides.test_slides:
            prediction = predictions[slide.slide_id]
            with replacing(prediction_path(folder, slide.slide_id)) as partial, partial.open("wb") as file:
                np.save(file, prediction.astype(np.float32))
            block_of = cut_into_blocks(along_curve(slide.fine.centres_um))
            sums = block_sums(prediction, truth[slide.slide_id], block_of)
            sums.save(folder / "blocks" / f"{slide.slide_id}.npz")
        write_genes(folder / GENES, genes_table(cell.system, score(predictions, truth), panel))
    description = {
        "system": cell.system,
        "settings": cell.settings([slide.patient for slide in sides.training.slides]),
        "fold": {"index": cell.fold.index, "train": list(cell.fold.train), "test": list(cell.fold.test)},
        "patients": {slide.slide_id: slide.patient for slide in sides.test_slides},
        "panel": {"id": panel.ids.tolist(), "name": panel.names.tolist()},
        "training": training,
        MEMBERS: [member.place(folder.parent).name for member in cell.members],
        "versions": package_versions(),
        "seconds": round(time.monotonic() - started, 1),
    }
    sync_below(folder)
    finish(cell, folder, description)
    forget(folder)


def mean_of_members(cell: Cell, cells: Path) -> dict[str, np.ndarray]:
    """Mean prediction (N, P) float32 of each test slide over the cells of single seeds, computed where they are not."""
    members = {member: member.place(cells) for member in cell.members}
    for member, folder in members.items():
        compute_one(member, folder, raises=True)
    computed = [read(member, folder) for member, folder in members.items()]
    return {slide_id: np.mean([one.prediction(slide_id) for one in computed], axis=0) for slide_id in cell.fold.test}


def follow() -> None:
    """Compute along, as one of several processes, what the first one says; what it leaves on disk is not wanted here.

    The first process says by `compute` which cell is next, and `None` where there is none left.
    """
    while (cell := ranks().agree(cast("Cell | None", None))) is not None:
        seed_everything(cell.config.seed)
        sides = folds_of_process().open(cell)
        with tempfile.TemporaryDirectory() as folder:
            system, _ = fit_system(cell, Path(folder), hold_out(sides.training, cell.config))
            for slide in sides.test_slides:
                system.predict(slide)


def judge(config: FitConfig, side: TrainingSide, folder: Path, *, epochs: int) -> Progress:
    """Train MagNet as a cell does, up to so many epochs, and score it on what the side holds out; no result is kept."""
    seed_everything(config.seed)
    return MagNetSystem(config, folder, epochs=epochs).fit(side)


def fit_system(cell: Cell, folder: Path, side: TrainingSide) -> tuple[System, dict[str, Any] | None]:
    """Fit a cell's system and say how it went, where it went in epochs; MagNet's run is saved.

    Where few patients are learnt from, a first training chooses the epoch by what is held out, and a second one starts
    anew on all slides and ends after that epoch.
    """
    choice = choose_epoch(cell, folder / CHOOSING, side) if is_trained_again(cell, side) else None
    if choice is None:
        system = build_system(cell, folder, heads=None if side.held_out else heads_of(cell, folder.parent))
        done = system.fit(side)
    else:
        seed_everything(cell.config.seed)
        system = build_system(cell, folder, stage=", on all slides", epochs=choice.kept_epoch)
        done = system.fit(replace(side, held_out=()))
    if done is None:
        return system, None
    told = describe_training(side, done, choice)
    if isinstance(system, MagNetSystem):
        system.save(side, told)
    notice(f"{cell.said}: {kept_in_words(told)}")
    return system, told


def is_trained_again(cell: Cell, side: TrainingSide) -> bool:
    """Whether the epoch is chosen by a training of its own, as too little would be learnt from beside it."""
    validation = cell.config.validation
    is_few = bool(side.held_out) and validation.holds_out_few(side.num_patients)
    return is_few and validation.refit and learns_in_epochs(cell.system)


def choose_epoch(cell: Cell, folder: Path, side: TrainingSide) -> Progress:
    """Return how the first training in a folder went; it is not repeated where it was finished."""
    if (done := ranks().agree(read_choice(folder))) is None:
        folder.mkdir(parents=True, exist_ok=True)
        done = build_system(cell, folder, stage=", choosing the epoch").fit(replace(side))  # its own labels go with it
        assert done is not None  # it learns in epochs
        write_choice(folder, done)
    forget(folder)
    return done


def heads_of(cell: Cell, cells: Path) -> Path | None:
    """The finished cell that is like this one with its encoder frozen, whose heads are those that this one begins with.

    Several processes of one training see the folder of the first one alone, and train them.
    """
    if cell.system != MAGNET or not cell.config.starts_with_heads or ranks().size > 1:
        return None
    frozen = replace(cell, config=cell.config.of_heads())
    folder = frozen.place(cells)
    return folder if (folder / CELL).exists() else None


def build_system(
    cell: Cell, folder: Path, *, stage: str = "", epochs: int | None = None, heads: Path | None = None
) -> System:
    """Build the cell's system. The folder keeps its checkpoint for going on after a stop, and the run of MagNet.

    Its bar says the stage; `epochs` ends the training earlier than its settings do; `heads` is what `heads_of` found.
    """
    config = cell.config
    if cell.system == MAGNET:
        return MagNetSystem(config, folder, title=f"{cell.said}{stage}", epochs=epochs, heads=heads)
    setting = Setting(
        config.seed, pick_device(config.device), config.compute, finetune=cell.finetune, title=cell.title,
        stage=f"{cell.said.removeprefix(cell.title)}{stage}", epochs=epochs, folder=folder,
        patience=config.validation.patience,
    )  # fmt: skip
    return build_rival(cell.system, cell.rivals, setting)


def in_one_line(error: Exception) -> str:
    """Say what failed, and what may help."""
    return fault_line(error) or str(error).partition("\n")[0]

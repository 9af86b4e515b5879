"""The study of a sweep: an Optuna study in one SQLite file, which one process asks for trials and tells how they end.

In: the sweep's folder. Out: trials to run. Those that were under way when a command ended go on under new numbers.
"""

import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import optuna
from optuna.exceptions import OptunaError
from optuna.pruners import BasePruner, MedianPruner, NopPruner, SuccessiveHalvingPruner
from optuna.samplers import BaseSampler, RandomSampler, TPESampler
from optuna.storages import RDBStorage
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy.exc import DatabaseError

from cache.lock import FileLock
from magnet_core.environment import known_fault
from magnet_core.errors import MagnetError
from magnet_core.files import remove_left, replacing
from magnet_core.seeding import named_rng
from train.settings.search import SearchConfig
from train.sweep.config import Sweep
from train.sweep.space import Value

STUDY = "sweep"
DATABASE, DRAWING, DRIVER, SCRATCH = "study.db", "drawing.lock", "sweep.lock", "scratch"
ANEW = f"delete {DATABASE}, and give 'train sweep' again: it is made anew from the records of its trials"
LOCK_SECONDS = 300  # that SQLite waits for another process's transaction
GOES_ON, REFUSED, KEPT_EPOCH = "goes_on", "refused", "kept_epoch"  # what a trial says of itself

PRUNERS: dict[str, Callable[[SearchConfig], BasePruner]] = {
    "median": lambda search: MedianPruner(n_startup_trials=search.startup, n_warmup_steps=search.warmup_epochs),
    "asha": lambda search: SuccessiveHalvingPruner(
        min_resource=search.warmup_epochs, reduction_factor=search.reduction
    ),
    "none": lambda search: NopPruner(),
}


@contextmanager
def open_study(folder: Path, search: SearchConfig) -> Iterator[optuna.Study]:
    """Open the study of a folder, made if there is none."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    folder.mkdir(parents=True, exist_ok=True)
    database = folder / DATABASE
    with locked(folder / DRAWING):
        remove_left(folder)
        if not database.exists():  # which a full disk or a kill could leave half made
            with replacing(database) as partial, opened(partial) as storage:
                optuna.create_study(storage=storage, study_name=STUDY, direction="maximize")
    with ExitStack() as stack:
        with whole(folder):
            storage = stack.enter_context(opened(database))
            study = optuna.load_study(storage=storage, study_name=STUDY, pruner=PRUNERS[search.pruner](search))
        yield study


@contextmanager
def whole(folder: Path) -> Iterator[None]:
    """Around what reads all of a study: a damaged one is one line."""
    try:
        yield
    except (DatabaseError, OptunaError, LookupError, ValueError, TypeError, AssertionError) as error:
        if known_fault(error):
            raise
        found = f"{type(error).__name__}: {str(error).partition(chr(10))[0]}"
        raise MagnetError(folder / DATABASE, expected="the study of a sweep", found=found, remedy=ANEW) from error


@contextmanager
def opened(database: Path) -> Iterator[RDBStorage]:
    """Open a database of studies, made if there is none."""
    storage = RDBStorage(f"sqlite:///{database.resolve()}", engine_kwargs={"connect_args": {"timeout": LOCK_SECONDS}})
    try:
        yield storage
    finally:
        storage.remove_session()
        storage.engine.dispose()


def finished(trials: Sequence[FrozenTrial]) -> list[FrozenTrial]:
    """The trials that count: whole, pruned or refused ones; not those under way, stopped or killed."""
    return [trial for trial in trials if trial.state in (TrialState.COMPLETE, TrialState.PRUNED)]


@dataclass(frozen=True)
class Draw:
    """A trial to run, and its values."""

    trial: optuna.Trial
    values: Mapping[str, Value]


def draw(study: optuna.Study, sweep: Sweep, taken: int) -> Draw:
    """Draw a trial where `taken` are finished or under way.

    The sampler's seed follows from how many there are: a sweep of one process therefore draws what it would have drawn,
    had it never been stopped. A trial that goes on takes over the checkpoints of the one that was stopped.
    """
    study.sampler = build_sampler(sweep.search, taken)
    trial = study.ask()
    values = {name: item.suggest(trial, name) for name, item in sweep.space.items()}
    before = trial.user_attrs.get(GOES_ON)
    if before is not None and scratch_folder(sweep, before).exists():
        scratch_folder(sweep, before).rename(scratch_folder(sweep, trial.number))
    return Draw(trial, values)


def take_up(study: optuna.Study, sweep: Sweep) -> None:
    """Have trials that were under way when a command ended, however it ended, drawn again, to go on where they were."""
    waiting = {trial.user_attrs.get(GOES_ON) for trial in study.get_trials(states=(TrialState.WAITING,))}
    for trial in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
        study.tell(trial.number, state=TrialState.FAIL)
        if trial.params.keys() == sweep.space.keys():  # else it ended while it was drawn
            study.enqueue_trial(trial.params, user_attrs={GOES_ON: trial.number})
            waiting.add(trial.number)
    for folder in (sweep.folder / SCRATCH).glob("*"):  # of one that ended while it was cleared up
        if folder.name not in map(str, waiting):
            shutil.rmtree(folder, ignore_errors=True)


def scratch_folder(sweep: Sweep, number: int) -> Path:
    """Where a trial under way keeps its checkpoints."""
    return sweep.folder / SCRATCH / str(number)


def build_sampler(search: SearchConfig, taken: int) -> BaseSampler:
    """Build the sampler of the next trial after `taken` others."""
    seed = int(named_rng(search.seed, "sweep", str(taken)).integers(2**31))
    if search.sampler == "random":
        return RandomSampler(seed=seed)
    return TPESampler(n_startup_trials=search.startup, seed=seed)


@contextmanager
def alone(sweep: Sweep) -> Iterator[None]:
    """Keep other commands from the sweep meanwhile; one that is at it already is an error."""
    sweep.folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(sweep.folder / DRIVER)
    if not lock.acquire(wait=False):
        raise MagnetError(
            sweep.folder,
            expected="a sweep that no other command is at",
            found=lock.owner(),
            remedy="wait for it, or spread one command by --jobs or --engine ray",
        )
    try:
        yield
    finally:
        lock.release()


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold a lock between processes."""
    lock = FileLock(path)
    lock.acquire(wait=True)
    try:
        yield
    finally:
        lock.release()

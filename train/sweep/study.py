"""The study of a sweep: an Optuna study in one SQLite file, which one process asks for trials and tells how they end.

In: the sweep's folder, or a storage that several processes share. Out: trials to run. Those that were under way when a
command ended go on under new numbers.
"""

import shutil
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import optuna
from optuna.exceptions import OptunaError
from optuna.pruners import BasePruner, MedianPruner, NopPruner, SuccessiveHalvingPruner
from optuna.samplers import BaseSampler, RandomSampler, TPESampler
from optuna.storages import RDBStorage
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy.exc import DatabaseError, DBAPIError

from cache.lock import FileLock
from magnet_core.environment import known_fault
from magnet_core.errors import MagnetError
from magnet_core.files import remove_left, replacing
from magnet_core.seeding import named_rng
from train.settings.search import SearchConfig
from train.sweep.config import Sweep
from train.sweep.space import Value
from train.sweep.storage import Storage

STUDY = "sweep"
DATABASE, DRAWING, DRIVER, SCRATCH = "study.db", "drawing.lock", "sweep.lock", "scratch"
ANEW = f"delete {DATABASE}, and give 'train sweep' again: it is made anew from the records of its trials"
LEG = "leg.lock"  # in a trial's folder, while a process works on it
LOCK_SECONDS = 300  # that SQLite waits for another process's transaction
GOES_ON, REFUSED, KEPT_EPOCH = "goes_on", "refused", "kept_epoch"  # what a trial says of itself

PRUNERS: dict[str, Callable[[SearchConfig], BasePruner]] = {
    "median": lambda search: MedianPruner(n_startup_trials=search.startup, n_warmup_steps=search.warmup_epochs),
    "asha": lambda search: SuccessiveHalvingPruner(
        min_resource=search.warmup_epochs, reduction_factor=search.reduction
    ),
    "none": lambda search: NopPruner(),
}


@dataclass(frozen=True)
class Shared:
    """The study of a sweep in a storage that several commands share, by the name that it has there."""

    storage: Storage
    study: str

    @property
    def anew(self) -> str:
        """How the study is made anew where it is damaged."""
        what = self.storage.place if self.storage.url is None else f"the study {self.study} there"
        return f"end the commands that are at it, delete {what}, and give them again: it is made anew from its records"


def open_study(
    folder: Path, search: SearchConfig, shared: Shared | None = None
) -> AbstractContextManager[optuna.Study]:
    """Open the study of a folder, or the shared one, made if there is none."""
    return open_own(folder, search) if shared is None else open_shared(folder, search, shared)


@contextmanager
def open_shared(folder: Path, search: SearchConfig, shared: Shared) -> Iterator[optuna.Study]:
    """Open a study that other commands may have open."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    with ExitStack() as stack:
        with locked(folder / DRAWING), whole(folder, shared):
            remove_left(folder)
            storage = stack.enter_context(shared.storage.opened())
            study = optuna.create_study(
                storage=storage,
                study_name=shared.study,
                direction="maximize",
                pruner=PRUNERS[search.pruner](search),
                load_if_exists=True,
            )
        yield study


@contextmanager
def open_own(folder: Path, search: SearchConfig) -> Iterator[optuna.Study]:
    """Open the study in a folder's own file."""
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
def whole(folder: Path, shared: Shared | None = None) -> Iterator[None]:
    """Around what reads all of a study: a damaged one is one line."""
    try:
        yield
    except (DatabaseError, OptunaError, LookupError, ValueError, TypeError, AssertionError) as error:
        if known_fault(error) or (shared is not None and isinstance(error, DBAPIError)):  # of which its storage tells
            raise
        found = f"{type(error).__name__}: {str(error).partition(chr(10))[0]}"
        where, anew = (folder / DATABASE, ANEW) if shared is None else (shared.storage.place, shared.anew)
        raise MagnetError(where, expected="the study of a sweep", found=found, remedy=anew) from error


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


def take_up(study: optuna.Study, sweep: Sweep, *, at_work: Collection[int] = ()) -> None:
    """Have trials that were under way when a command ended, however it ended, drawn again, to go on where they were.

    Those `at_work` are under way now.
    """
    trials = study.get_trials(deepcopy=False)
    waiting = {trial.user_attrs.get(GOES_ON) for trial in trials if trial.state == TrialState.WAITING}
    for trial in trials:
        if trial.state != TrialState.RUNNING or trial.number in at_work:
            continue
        before = trial.user_attrs.get(GOES_ON, trial.number)
        left = trial.number if scratch_folder(sweep, trial.number).exists() else before
        whole_draws = (each.params for each in (trial, trials[before]) if each.params.keys() == sweep.space.keys())
        params = next(whole_draws, None)  # None: it ended while it was drawn
        if params is not None and left not in waiting:
            study.enqueue_trial(params, user_attrs={GOES_ON: left})
            waiting.add(left)
        study.tell(trial.number, state=TrialState.FAIL)
    for folder in (sweep.folder / SCRATCH).glob("*"):  # of one that ended while it was cleared up
        if folder.name not in map(str, (*waiting, *at_work)):
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
            remedy="wait for it, spread one command by --jobs or --engine ray, or begin a sweep with --storage",
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

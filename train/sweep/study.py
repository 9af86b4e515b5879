"""The study of a sweep: an Optuna study in one SQLite file, whose trials several processes draw one at a time.

In: the sweep's folder. Out: trials to run, until as many as wanted are done or under way. A drawn trial belongs to a
process that holds a lock file as long as it lives; the kernel lets go of it however the process ends, so a trial whose
lock is free was killed, and does not count. Processes may run on several machines where the file system keeps flock and
POSIX locks between them (NFS 4, or NFS 3 with lockd, mounted without `nolock`); SQLite asks for the same.
"""

import shutil
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

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
DATABASE, DRAWING, WORKERS, SCRATCH = "study.db", "drawing.lock", "workers", "scratch"
ANEW = f"delete {DATABASE}, and give 'train sweep' again: it is made anew from the records of its trials"
LOCK_SECONDS = 300  # that SQLite waits for another process's transaction
WORKER, REFUSED, KEPT_EPOCH = "worker", "refused", "kept_epoch"  # what a trial says of itself

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
    """A trial that is this process's to run, and its values."""

    trial: optuna.Trial
    values: Mapping[str, Value]


class Worker(AbstractContextManager["Worker"]):
    """A process that draws trials of a study; to be entered, so that others see it live."""

    def __init__(self, study: optuna.Study, sweep: Sweep) -> None:
        self._study = study
        self._sweep = sweep
        self._name = uuid.uuid4().hex
        self._lock = FileLock(sweep.folder / WORKERS / self._name)

    def __enter__(self) -> Self:
        self._lock.path.parent.mkdir(parents=True, exist_ok=True)
        self._lock.acquire(wait=True)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._lock.release()

    def draw(self, total: int) -> Draw | None:
        """Draw a trial; None where `total` are finished or under way.

        The sampler's seed follows from how many there are. A sweep of one process therefore draws what it would have
        drawn, had it never been stopped.
        """
        with locked(self._sweep.folder / DRAWING):
            self._fail_killed()
            trials = self._study.get_trials(deepcopy=False)
            taken = len(finished(trials)) + sum(trial.state == TrialState.RUNNING for trial in trials)
            if taken >= total:
                return None
            self._study.sampler = build_sampler(self._sweep.search, taken)
            trial = self._study.ask()
            trial.set_user_attr(WORKER, self._name)
            return Draw(trial, {name: item.suggest(trial, name) for name, item in self._sweep.space.items()})

    def _fail_killed(self) -> None:
        for trial in self._study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
            owner = trial.user_attrs.get(WORKER)  # none: killed while it drew
            if owner != self._name and (owner is None or _is_free(self._sweep.folder / WORKERS / owner)):
                self._study.tell(trial.number, state=TrialState.FAIL)
        under_way = {str(trial.number) for trial in self._study.get_trials(states=(TrialState.RUNNING,))}
        for folder in (self._sweep.folder / SCRATCH).glob("*"):  # also of one that a signal ended while it cleared up
            if folder.name not in under_way:
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
def locked(path: Path) -> Iterator[None]:
    """Hold a lock between processes."""
    lock = FileLock(path)
    lock.acquire(wait=True)
    try:
        yield
    finally:
        lock.release()


def _is_free(path: Path) -> bool:
    lock = FileLock(path)
    if not lock.acquire(wait=False):
        return False
    lock.release()
    return True

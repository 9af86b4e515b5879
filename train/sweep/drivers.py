"""The commands that work on a sweep: one alone, or several that share its study, each with trials of its own.

In: a sweep's folder, which all of them see. Out: whose trials are under way, and turns at drawing one. Each of several
holds a lock as long as it lives, `driver-NAME.lock`, and signs its trials with NAME: where nobody holds it, the command
ended, however it ended, and its trials go on in another.
"""

import os
import re
import secrets
import socket
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path

import optuna
from optuna.trial import FrozenTrial, TrialState

from cache.lock import FileLock, is_held
from train.sweep.config import Sweep
from train.sweep.study import DRAWING, LEG, SCRATCH, Shared, alone, locked

SIGNED = "driver"  # what a trial says of itself


@dataclass(frozen=True)
class Driver:
    """A command that works on a sweep; its `name` is empty where it is the only one."""

    folder: Path
    name: str = ""

    def turn(self) -> AbstractContextManager[None]:
        """Keep other commands from drawing and taking up trials meanwhile."""
        return locked(self.folder / DRAWING) if self.name else nullcontext()

    def sign(self, trial: optuna.Trial) -> None:
        """Say on a trial whose it is."""
        if self.name:
            trial.set_user_attr(SIGNED, self.name)

    def of_others(self, trials: Sequence[FrozenTrial]) -> set[int]:
        """Numbers of the trials that other commands have under way, or a process that outlives its command for now."""
        if not self.name:
            return set()
        running = (trial for trial in trials if trial.state == TrialState.RUNNING)
        others = (trial for trial in running if trial.user_attrs.get(SIGNED) != self.name)
        return {trial.number for trial in others if self._is_at_work(trial)}

    def _is_at_work(self, trial: FrozenTrial) -> bool:
        """Tell whether a process works on a trial; one that its command had no time to sign is nobody's."""
        signed = trial.user_attrs.get(SIGNED)
        if signed is not None and is_held(lock_path(self.folder, signed)):
            return True
        return is_held(self.folder / SCRATCH / str(trial.number) / LEG)


@contextmanager
def driving(sweep: Sweep, shared: Shared | None) -> Iterator[Driver]:
    """Be the one command at a sweep, or one of those that share its study."""
    if shared is None:
        with alone(sweep):
            yield Driver(sweep.folder)
        return
    host = re.sub("[^A-Za-z0-9]+", "-", socket.gethostname())[:40]
    name = f"{host}-{os.getpid()}-{secrets.token_hex(4)}"
    lock = FileLock(lock_path(sweep.folder, name))
    with locked(sweep.folder / DRAWING):  # in which others remove what is left
        for left in sweep.folder.glob(lock_path(sweep.folder, "*").name):
            if not is_held(left):
                left.unlink(missing_ok=True)
        lock.acquire(wait=True)
    try:
        yield Driver(sweep.folder, name)
    finally:
        lock.release()


def lock_path(folder: Path, name: str) -> Path:
    """Where the lock of a command lies."""
    return folder / f"driver-{name}.lock"

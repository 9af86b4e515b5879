"""Commands that are killed, again and again, and given again until they end.

In: a command, how many kills. Out: a row. Half of the kills fall at a moment that is drawn (a file is opened, synced or
renamed, a transaction is committed), the others after a time that is drawn; one in four asks to stop (SIGTERM, SIGINT).
In the end all that counts is as in a run that was never killed.
"""

import random
import shutil
import signal
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tests.faults.children import Child, Ended
from tests.faults.facts import differences
from tests.faults.moments import Moments, count_moments, signalled
from tests.faults.record import Row
from tests.faults.setting import Attacked, has_finished

KILLS_IN_A_ROW = 5  # before a command may end
SIGNALS = (signal.SIGKILL, signal.SIGKILL, signal.SIGKILL, signal.SIGTERM, signal.SIGKILL, signal.SIGINT)
STOPPED = {1, 130, 143, -signal.SIGTERM, -signal.SIGINT, -signal.SIGKILL}
PATIENCE_SECONDS = 120  # for a process that was asked to stop


@dataclass(frozen=True)
class Whole:
    """A run that nothing befell: what it left, how long it took, and its moments."""

    facts: dict[str, str]
    seconds: float
    moments: int


def whole_run(attacked: Attacked, folder: Path) -> Whole:
    """Run a command as it should be, twice: the second time, when all is imported, says how long it takes."""
    counted = folder.with_suffix(".moments")
    attacked.run_whole(folder, lambda: count_moments(folder, counted))
    facts, moments = attacked.outcome(folder), int(counted.read_text())
    ended = attacked.run_whole(folder)
    if different := differences(facts, attacked.outcome(folder)):
        raise RuntimeError(f"{attacked.name}: {different} differ from one run to the next, which nothing befell")
    return Whole(facts, ended.seconds, moments)


def kill(attacked: Attacked, folder: Path, *, kills: int, seed: int) -> Row:
    """Kill a command so often."""
    row = Row(f"kill: {attacked.name}")
    whole = whole_run(attacked, folder / "whole")
    rng = random.Random(f"{seed} {attacked.name}")
    while row.tried < kills:
        work = attacked.fresh(folder / "killed")
        fate, before = "", set[str]()
        for _ in range(KILLS_IN_A_ROW):
            number = rng.choice(SIGNALS)
            ended, fate = _killed_once(attacked, work, whole, rng, number)
            if ended.code == 0:
                break
            row.add(*judged(ended, fate, STOPPED))
            now = has_finished(work)
            if before - now:
                row.fail("lost", f"{fate}: {sorted(before - now)} is gone")
            before = now
        ended = attacked.start(work).wait()
        judge_end(row, attacked, work, whole.facts, ended, fate)
    row.facts["seconds_of_a_whole_run"], row.facts["moments_of_a_whole_run"] = round(whole.seconds, 2), whole.moments
    shutil.rmtree(folder)
    return row.close()


def judged(ended: Ended, fate: str, expected: set[int]) -> tuple[str | None, str]:
    """What is wrong with how a process ended after what befell it."""
    if ended.is_foreign or ended.code not in expected:
        return "traceback", f"{fate}: exit code {ended.code}{', hung' if ended.hung else ''}: {ended.last_line}"
    return None, fate


def judge_end(row: Row, attacked: Attacked, work: Path, truth: dict[str, str], ended: Ended, fate: str) -> None:
    """Compare what a command has left in the end with what it should."""
    if ended.code != 0:
        row.fail("traceback" if ended.is_foreign else "lost", f"given again after {fate}: {ended.last_line}")
    elif different := differences(truth, attacked.outcome(work)):
        row.fail("lost", f"given again after {fate}: other {', '.join(different[:3])} ({len(different)} in all)")


def _killed_once(attacked: Attacked, work: Path, whole: Whole, rng: random.Random, number: int) -> tuple[Ended, str]:
    """Run a command until it is killed, or to its end where that comes first."""
    name = signal.Signals(number).name
    if rng.random() < 0.5:
        moment = rng.randrange(whole.moments)
        child = attacked.start(work, lambda: set_off(work, signalled(moment, number)))
        return child.wait(PATIENCE_SECONDS), f"{name} at moment {moment} of {whole.moments}"
    seconds = rng.uniform(0, whole.seconds)
    child = attacked.start(work)
    _send_after(child, seconds, number)
    return child.wait(PATIENCE_SECONDS), f"{name} after {seconds:.2f} of {whole.seconds:.2f} s"


def _send_after(child: Child, seconds: float, number: int) -> None:
    if not child.has_ended_within(seconds):
        child.send(number)


def set_off(folder: Path, happens: Callable[[int, Path], None]) -> None:
    """Let something happen at the moments of this process in a folder."""
    Moments(folder, happens)

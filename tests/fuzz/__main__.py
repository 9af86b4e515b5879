"""Fuzz the parsers: `python -m tests.fuzz --minutes 10`, a confined child a target; see `make fuzz`.

Each target begins with the cases in `corpus/TARGET/WHAT/`, which failed once; their names are those of whole files.

In: minutes a target, names of targets. Out: a row a target in the record of `tests.faults`, and each mutant that
failed, as a file. A mutant fails where its reader raises what is not ours, crashes, takes more than ten seconds, or
wants more memory than it may have.
"""

import argparse
import itertools
import json
import mmap
import os
import re
import resource
import shutil
import signal
import struct
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Self

from magnet_core.errors import MagnetError
from tests.faults.children import Child, warm_up
from tests.faults.record import Row, write_rows
from tests.fuzz.mutate import mutations
from tests.fuzz.targets import TARGETS, Target

LONGEST_SECONDS = 10.0  # of the processor
PATIENCE_SECONDS = 120.0  # of the clock
MOST_BYTES = 2 << 30
LOOK_SECONDS = 0.2
LINES = "found.tsv"
CORPUS = Path(__file__).with_name("corpus")
PACKAGES = {"magnet_core", "cache", "extract", "train"}
STATE = struct.Struct("qd")  # number of the case, when it began


class Case:
    """What a child is at, in memory that its parent sees, too."""

    def __init__(self) -> None:
        self._shared = mmap.mmap(-1, STATE.size)
        self.looked_at = (-1, 0.0)  # the case that its parent saw last, and the processor time when it first did

    def set(self, number: int) -> None:
        """A case begins."""
        self._shared[:] = STATE.pack(number, time.monotonic())

    @property
    def number(self) -> int:
        return int(STATE.unpack(self._shared[:])[0])

    @property
    def seconds(self) -> float:
        return time.monotonic() - float(STATE.unpack(self._shared[:])[1])


class _Answer:
    """Takes what a reader raises; all that is not ours is kept as a line, with the mutant."""

    def __init__(self, found: Path, number: int, mutant: Path) -> None:
        self._found, self._number, self._mutant = found, number, mutant

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool:
        is_ours = isinstance(error, MagnetError) or (isinstance(error, OSError) and error.filename is not None)
        if error is None or is_ours:  # of a path that the system refuses, commands make a line themselves
            return True
        frames = [frame for frame in traceback.extract_tb(trace) if PACKAGES & {*Path(frame.filename).parts}]
        where = f"{Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else "?"
        keep(self._found, self._number, self._mutant, f"{type(error).__name__} at {where}", str(error))
        return True


def keep(found: Path, number: int, mutant: Path, kind: str, said: str) -> None:
    """Keep a line that says how a mutant failed, and the mutant where it is the first of its kind."""
    of_kind = found / re.sub(r"[^A-Za-z0-9.]+", "-", kind) / mutant.name
    of_kind.parent.mkdir(parents=True, exist_ok=True)
    if mutant.exists() and not of_kind.exists():
        shutil.copy(mutant, of_kind)
    with (found / LINES).open("a", encoding="utf-8") as lines:
        lines.write(f"{kind}\t{number} {mutant.name}: {' '.join(said.split())[:300]}\n")


def live(target: Target, cases: Callable[[int], Iterator[tuple[str, bytes]]], folder: Path, begun: Case) -> None:
    """Read cases until there are no more, in this process, which is confined."""
    warnings.simplefilter("ignore")
    in_use = int(re.search(r"VmSize:\s+(\d+)", Path("/proc/self/status").read_text())[1]) << 10  # type: ignore[index]
    resource.setrlimit(resource.RLIMIT_AS, (in_use + MOST_BYTES, in_use + MOST_BYTES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    work, number = folder / "work", begun.number
    for name, content in cases(number):
        work.mkdir(exist_ok=True)
        mutant = work / name
        mutant.write_bytes(content)
        begun.set(number)
        with _Answer(folder / "found", number, mutant):
            target.parse(mutant)
        mutant.unlink(missing_ok=True)
        number += 1
    begun.set(number)


def cases_of(target: Target, seeds: list[Path], first: int, until: float, seed: int) -> Iterator[tuple[str, bytes]]:
    """Names and contents from a number on: the corpus, then mutants of the seeds in turn until the time ends."""
    corpus = corpus_of(target)
    for path in corpus[first:]:
        yield path.name, path.read_bytes()
    streams = [
        (path.name, mutations(hash((seed, first, place)), path.read_bytes())) for place, path in enumerate(seeds)
    ]
    for name, stream in itertools.cycle(streams):
        if time.monotonic() > until:
            return
        yield name, next(stream)


def corpus_of(target: Target) -> list[Path]:
    """Cases that were found before and are kept, in their order."""
    return sorted((CORPUS / slug(target)).glob("*/*"))


def slug(target: Target) -> str:
    """The target's name for a folder."""
    return re.sub(r"\W+", "-", target.name)


def hangs_now(child: Child, case: Case) -> bool:
    """Whether a case has had more processor time than it may, or waits for ever; a loaded machine makes no hang."""
    busy = processor_seconds(child.pid)
    if case.number != case.looked_at[0]:
        case.looked_at = case.number, busy
    return busy - case.looked_at[1] > LONGEST_SECONDS or case.seconds > PATIENCE_SECONDS


def processor_seconds(pid: int) -> float:
    """Processor time of a process and of those that it has started, as Linux tells it."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        started = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except OSError:  # it has ended
        return 0.0
    own = sum(map(int, fields[11:15])) / os.sysconf("SC_CLK_TCK")
    return own + sum(processor_seconds(int(each)) for each in started)


def fuzz(target: Target, folder: Path, *, minutes: float, seed: int) -> Row:
    """Fuzz one parser for so long; a child that dies or hangs is followed by another."""
    row, case = Row(f"fuzz: {target.name}"), Case()
    (folder / "seeds").mkdir(parents=True)
    told = folder / "seeds.json"

    def make_seeds() -> None:
        told.write_text(json.dumps([str(path) for path in target.seeds(folder / "seeds")]))

    made = Child(make_seeds, folder, folder / "seeds.log").wait()
    if made.code != 0:
        raise RuntimeError(f"{target.name}: {made.said}")
    seeds = [Path(path) for path in json.loads(told.read_text())]
    first, until, known = 0, time.monotonic() + 60 * minutes, len(corpus_of(target))
    hangs = crashes = 0
    peak_before = _peak_mib()
    while first < known or time.monotonic() < until:
        case.set(first)
        cases = partial(cases_of, target, seeds, until=until, seed=seed)
        child = Child(partial(live, target, cases, folder, case), folder, folder / "log")
        while not (over := child.has_ended_within(LOOK_SECONDS)) and not hangs_now(child, case):
            pass
        if not over:
            child.send(signal.SIGKILL)
        ended, number = child.wait(), case.number
        if ended.code != 0:
            kind = f"exit code {ended.code}" if over else f"more than {LONGEST_SECONDS:.0f} s"
            names = {path.name for path in (*seeds, *corpus_of(target))}
            mutant = next((path for path in (folder / "work").glob("*") if path.name in names), folder / "none")
            keep(folder / "found", number, mutant, kind, ended.last_line)
            hangs, crashes = hangs + (not over), crashes + over
            shutil.rmtree(folder / "work", ignore_errors=True)
        row.tried += number - first + (ended.code != 0)
        first = number + 1
    kinds: Counter[str] = Counter()
    told = folder / "found" / LINES
    for line in told.read_text(encoding="utf-8").splitlines() if told.exists() else ():
        kind, _, example = line.partition("\t")
        kinds[kind] += 1
        if kinds[kind] == 1:
            row.fail("traceback", f"{kind}: {example}")
        else:
            row.traceback += 1
    row.facts["kinds"] = dict(kinds.most_common())
    if (peak := _peak_mib()) > max(peak_before, MOST_BYTES >> 20):
        row.fail("traceback", f"a process had {peak} MiB, more than {MOST_BYTES >> 20}")
    row.facts |= {"minutes": minutes, "hangs": hangs, "crashes": crashes, "peak_mib": peak}
    return row.close()


def _peak_mib() -> int:
    """Most memory that a child, or one that it has started, has had so far."""
    return resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss >> 10


def main() -> int:
    """Fuzz all targets, or those that are named; exit code 1 where a mutant failed."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("targets", nargs="*", help=f"some of: {', '.join(TARGETS)}")
    options.add_argument("--minutes", type=float, default=10, help="for each target")
    options.add_argument("--seed", type=int, default=0)
    options.add_argument("--out", type=Path, help="the record, in which rows of the same name are replaced")
    options.add_argument("--found", type=Path, help="folder for mutants that failed")
    given = options.parse_args()
    warm_up()
    failed = 0
    with tempfile.TemporaryDirectory(prefix="fuzz-") as place:
        for name in given.targets or TARGETS:
            folder = Path(place).resolve() / slug(TARGETS[name])
            row = fuzz(TARGETS[name], folder, minutes=given.minutes, seed=given.seed)
            failed += row.failed
            print(f"{row.what}: {row.tried} tried, {row.failed} failed, {row.facts}", flush=True)
            for example in row.examples:
                print(f"    {example}", flush=True)
            if given.out:
                write_rows(given.out, [row], seed=given.seed)
            if given.found and (folder / "found").exists():
                shutil.copytree(folder / "found", given.found / folder.name, dirs_exist_ok=True)
            shutil.rmtree(folder)
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())

"""The attack as a command: `python -m tests.faults`, a cut of it, or with --full all of it; see `make test-faults`."""

import argparse
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from tests.faults.children import warm_up
from tests.faults.damage import flip, swap, truncate
from tests.faults.full_disk import fill
from tests.faults.kills import kill
from tests.faults.record import Row, write_rows
from tests.faults.refused import refuse
from tests.faults.setting import Attacked, Base, commands, make_base
from tests.faults.writers import stale_sheets, two_writers

SEED = 0
Attack = Callable[[Base, Path, bool], Iterator[Row]]


def kills(base: Base, folder: Path, full: bool) -> Iterator[Row]:
    """Kill every command."""
    for name, attacked in _numbered(base, folder):
        yield kill(attacked, name, kills=100 if full else 2, seed=SEED)


def flips(base: Base, folder: Path, full: bool) -> Iterator[Row]:
    """Flip bits of a store, of a trained run, and of a table with its cells."""
    counts = {"store": 500, "run": 300, "table": 200} if full else {"store": 30, "run": 20, "table": 4}
    yield from flip(base, folder, flips=counts, seed=SEED)


def cuts(base: Base, folder: Path, full: bool) -> Iterator[Row]:
    """Truncate every file of them."""
    yield from truncate(base, folder)


def swaps(base: Base, folder: Path, full: bool) -> Iterator[Row]:
    """Exchange files and folders."""
    yield swap(base, folder, commands(base)["train fit, frozen"])


def full_disk(base: Base, folder: Path, full: bool) -> Iterator[Row]:
    """Let the disk be full."""
    for name, attacked in _numbered(base, folder):
        yield fill(attacked, name, points=10 if full else 1, seed=SEED)


def refusals(base: Base, folder: Path, full: bool) -> Iterator[Row]:
    """Let the system refuse a request."""
    for name, attacked in _numbered(base, folder):
        yield refuse(attacked, name, refusals=30 if full else 2, seed=SEED)


def together(base: Base, folder: Path, full: bool) -> Iterator[Row]:
    """Give a command to two processes at once, and to a store a sheet that has changed."""
    for name, attacked in _numbered(base, folder):
        yield two_writers(attacked, name, times=6 if full else 1, seed=SEED)


def sheets(base: Base, folder: Path, full: bool) -> Iterator[Row]:
    """Change the sample sheet of a store."""
    yield stale_sheets(base, folder)


def _numbered(base: Base, folder: Path) -> Iterator[tuple[Path, Attacked]]:
    for number, attacked in enumerate(commands(base).values()):
        place = folder / str(number)
        place.mkdir(parents=True)
        yield place, attacked


ATTACKS: dict[str, Attack] = {
    "kills": kills, "flips": flips, "cuts": cuts, "swaps": swaps, "full_disk": full_disk, "refusals": refusals,
    "together": together, "sheets": sheets,
}  # fmt: skip


def main() -> int:
    """Run the attacks that are named, by default all, print a line for each row; exit code 1 where something failed."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("attacks", nargs="*", help=f"some of: {', '.join(ATTACKS)}")
    options.add_argument("--full", action="store_true", help="all tries, about an hour")
    options.add_argument("--out", type=Path, help="the record, in which rows of the same name are replaced")
    options.add_argument(
        "--base", type=Path, help="a folder for the shared inputs, which are used again if they are there"
    )
    given = options.parse_args()
    warm_up()
    failed = 0
    with tempfile.TemporaryDirectory(prefix="faults-") as place:
        folder = Path(place).resolve()
        base = make_base((given.base or folder / "base").resolve())
        for name in given.attacks or ATTACKS:
            for row in ATTACKS[name](base, folder / name, given.full):
                failed += row.failed
                plain = row.plain()
                print(f"{row.what}: {row.tried} tried, {row.failed} failed, {plain['seconds']:.0f} s", flush=True)
                for example in row.examples:
                    print(f"    {example}", flush=True)
                if given.out:
                    write_rows(given.out, [row], seed=SEED)
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())

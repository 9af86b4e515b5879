"""The attack as a command: `python -m tests.faults`, a cut of it, or with --share all of it; see `make test-faults`."""

import argparse
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
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


@dataclass(frozen=True)
class Order:
    """What to attack: the shared inputs, a folder to do it in, and which commands, of none all.

    share  of all tries; 0 stands for a cut that takes half a minute
    """

    base: Base
    folder: Path
    share: float
    only: tuple[str, ...]

    def times(self, full: int, cut: int) -> int:
        """How often something is tried, of so often in full and in the cut."""
        return max(1, round(self.share * full)) if self.share else cut

    def commands(self) -> Iterator[tuple[Path, Attacked]]:
        """The commands, each with a folder of its own."""
        for number, attacked in enumerate(commands(self.base).values()):
            if not self.only or attacked.name in self.only:
                place = self.folder / str(number)
                place.mkdir(parents=True)
                yield place, attacked


Attack = Callable[[Order], Iterator[Row]]


def kills(order: Order) -> Iterator[Row]:
    """Kill every command."""
    for folder, attacked in order.commands():
        yield kill(attacked, folder, kills=order.times(100, 2), seed=SEED)


def flips(order: Order) -> Iterator[Row]:
    """Flip bits of a store, of a trained run, of a table with its cells, and of a sweep."""
    full, cut = {"store": 500, "run": 500, "table": 200, "sweep": 200}, {"store": 30, "run": 20, "table": 3, "sweep": 5}
    counts = {name: order.times(full[name], cut[name]) for name in full}
    yield from flip(order.base, order.folder, flips=counts, seed=SEED)


def cuts(order: Order) -> Iterator[Row]:
    """Truncate every file of them."""
    yield from truncate(order.base, order.folder)


def swaps(order: Order) -> Iterator[Row]:
    """Exchange files and folders."""
    yield swap(order.base, order.folder, commands(order.base)["train fit frozen"])


def full_disk(order: Order) -> Iterator[Row]:
    """Let the disk be full."""
    for folder, attacked in order.commands():
        yield fill(attacked, folder, points=order.times(10, 1), seed=SEED)


def refusals(order: Order) -> Iterator[Row]:
    """Let the system refuse a request."""
    for folder, attacked in order.commands():
        yield refuse(attacked, folder, refusals=order.times(30, 2), seed=SEED)


def together(order: Order) -> Iterator[Row]:
    """Give a command to two processes at once, and to a store a sheet that has changed."""
    for folder, attacked in order.commands():
        yield two_writers(attacked, folder, times=order.times(6, 1), seed=SEED)


def sheets(order: Order) -> Iterator[Row]:
    """Change the sample sheet of a store."""
    yield stale_sheets(order.base, order.folder)


ATTACKS: dict[str, Attack] = {
    "kills": kills, "flips": flips, "cuts": cuts, "swaps": swaps, "full_disk": full_disk, "refusals": refusals,
    "together": together, "sheets": sheets,
}  # fmt: skip


def main() -> int:
    """Run the attacks that are named, by default all, print a line for each row; exit code 1 where something failed."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("attacks", nargs="*", help=f"some of: {', '.join(ATTACKS)}")
    options.add_argument("--share", type=float, default=0, help="of all tries; 1 takes about an hour")
    options.add_argument("--out", type=Path, help="the record, in which rows of the same name are replaced")
    options.add_argument(
        "--base", type=Path, help="a folder for the shared inputs, which are used again if they are there"
    )
    options.add_argument("--commands", default="", help="only these of the attacked commands, with commas between")
    given = options.parse_args()
    only = tuple(name for name in given.commands.split(",") if name)
    warm_up()
    failed = 0
    with tempfile.TemporaryDirectory(prefix="faults-") as place:
        folder = Path(place).resolve()
        base = make_base((given.base or folder / "base").resolve())
        if unknown := set(only) - {attacked.name for attacked in commands(base).values()}:
            options.error(f"--commands: no {', '.join(sorted(unknown))} among {', '.join(commands(base))}")
        for name in given.attacks or ATTACKS:
            (folder / name).mkdir()
            for row in ATTACKS[name](Order(base, folder / name, given.share, only)):
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

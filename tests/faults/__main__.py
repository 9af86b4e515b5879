"""The attack as a command: `python -m tests.faults`, a cut of it, or with --full all of it; see `make test-faults`."""

import argparse
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from tests.faults.children import warm_up
from tests.faults.kills import kill
from tests.faults.record import Row, write_rows
from tests.faults.setting import Base, commands, make_base

SEED = 0
Attack = Callable[[Base, Path, bool], Iterator[Row]]


def kills(base: Base, folder: Path, full: bool) -> Iterator[Row]:
    """Kill every command."""
    for number, attacked in enumerate(commands(base).values()):
        yield kill(attacked, folder / str(number), kills=100 if full else 2, seed=SEED)


ATTACKS: dict[str, Attack] = {"kills": kills}


def main() -> int:
    """Run the attacks that are named, by default all, print a line for each row; exit code 1 where something failed."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("attacks", nargs="*", help=f"some of: {', '.join(ATTACKS)}")
    options.add_argument("--full", action="store_true", help="all tries, about an hour")
    options.add_argument("--out", type=Path, help="the record, in which rows of the same name are replaced")
    given = options.parse_args()
    warm_up()
    failed = 0
    with tempfile.TemporaryDirectory(prefix="faults-") as place:
        folder = Path(place).resolve()
        base = make_base(folder / "base")
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

"""Commands of whose requests the system refuses one: a disk that fails, a folder without rights, a full disk.

In: a command, how many refusals. Out: a row. The refusal falls at a moment that is drawn, of reading and of
writing. The command ends in one line, or gets over it; given again it ends as it should.
"""

import errno
import random
import shutil
from functools import partial
from pathlib import Path

from tests.faults.children import DOCUMENTED
from tests.faults.kills import judge_end, judged
from tests.faults.moments import Moments, count_moments, refused
from tests.faults.record import Row
from tests.faults.setting import Attacked

CODES = (errno.EIO, errno.EACCES, errno.ENOSPC, errno.EROFS, errno.ESTALE)


def refuse(attacked: Attacked, folder: Path, *, refusals: int, seed: int) -> Row:
    """Refuse what a command asks for, once in each of so many runs."""
    row = Row(f"refused: {attacked.name}")
    whole, work = folder / "whole", folder / "work"
    counted = folder / "moments"
    attacked.run_whole(whole, lambda: count_moments(whole, counted, reads=True))
    truth, moments = attacked.outcome(whole), int(counted.read_text())
    rng = random.Random(f"{seed} {attacked.name}")
    for _ in range(refusals):
        code, at, times = rng.choice(CODES), rng.randrange(moments), rng.choice((1, 1, 1000))
        fate = f"{errno.errorcode[code]} at moment {at} of {moments}{' and after it' if times > 1 else ''}"
        attacked.fresh(work)
        ended = attacked.start(work, partial(_set_off, work, at, code, times)).wait()
        row.add(*judged(ended, fate, DOCUMENTED))
        judge_end(row, attacked, work, truth, attacked.start(work).wait(), fate)
    shutil.rmtree(folder)
    return row.close()


def _set_off(folder: Path, at: int, code: int, times: int) -> None:
    Moments(folder, refused(at, code, times=times), reads=True)

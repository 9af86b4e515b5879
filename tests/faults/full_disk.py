"""Commands whose disk is full, at many points of the way, and that go on when there is room.

In: a command, how many points. Out: a row. The disk is a small tmpfs, mounted in a namespace of the child's own, which
needs no root; where the kernel forbids that, a limit to the size of a file stands in for it.
"""

import ctypes
import errno
import json
import os
import random
import resource
import shutil
from pathlib import Path

from tests.faults.children import DOCUMENTED, Child
from tests.faults.facts import differences
from tests.faults.kills import judge_end, judged
from tests.faults.record import Row
from tests.faults.setting import Attacked

NEW_NAMESPACES = 0x00020000 | 0x10000000  # CLONE_NEWNS | CLONE_NEWUSER, of sched.h
REMOUNT = 0x20  # MS_REMOUNT, of mount.h
ROOMY = 1 << 30
PAGE = 4096


def fill(attacked: Attacked, folder: Path, *, points: int, seed: int) -> Row:
    """Run a command on disks of so many sizes, each too small, and then give it the room it needs."""
    whole, small = folder / "whole", folder / "disk"
    row = Row(f"full disk: {attacked.name}")
    attacked.fresh(whole)
    before = _used(whole)
    attacked.run_whole(whole)
    truth, needed = attacked.outcome(whole), _used(whole) - before
    rng = random.Random(f"{seed} {attacked.name}")
    small.mkdir()
    mounts = Child(lambda: _mount(small, ROOMY), folder, folder / "mount.log").wait().code == 0
    row.facts["disk"] = "a tmpfs of few bytes" if mounts else "a limit to the size of files"
    for point in range(points):
        room = int(0.95 * needed * (point + rng.random()) / points)
        if mounts:
            _on_a_small_disk(row, attacked, small, truth, room, folder)
        else:
            _with_small_files(row, attacked, folder / "limited", truth, room)
    shutil.rmtree(folder)
    return row.close()


def _on_a_small_disk(row: Row, attacked: Attacked, disk: Path, truth: dict[str, str], room: int, folder: Path) -> None:
    """One attempt, in a child that alone sees the disk; what came of it comes back as a file."""
    told = folder / "told.json"
    told.unlink(missing_ok=True)

    def work() -> None:
        _mount(disk, ROOMY)
        one = Row("")
        place = attacked.fresh(disk / "work")
        _mount(disk, _used(disk) + room, again=True)
        ended = attacked.start(place, log=folder / "full.log").wait()
        fate = f"{room} bytes of room"
        one.add(*judged(ended, fate, DOCUMENTED))
        _mount(disk, ROOMY, again=True)
        finished = attacked.start(place, log=folder / "again.log").wait()
        judge_end(one, attacked, place, truth, finished, fate)
        told.write_text(json.dumps([one.plain(), ended.code]))

    ended = Child(work, folder, folder / "disk.log").wait(600)
    if ended.code != 0:
        raise RuntimeError(f"{attacked.name}, on a small disk: {ended.said}")
    one, code = json.loads(told.read_bytes())
    row.tried += code != 0  # where the room was enough, nothing was tried
    for example in one["examples"]:
        row.fail(*example.split(": ", 1))


def _with_small_files(row: Row, attacked: Attacked, place: Path, truth: dict[str, str], room: int) -> None:
    """One attempt with no file longer than so many bytes."""
    attacked.fresh(place)
    ended = attacked.start(place, lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (room, room))).wait()
    fate = f"files of at most {room} bytes"
    if ended.code != 0:
        row.add(*judged(ended, fate, DOCUMENTED))
        judge_end(row, attacked, place, truth, attacked.start(place).wait(), fate)
    elif different := differences(truth, attacked.outcome(place)):
        row.fail("lost", f"{fate}: other {different[:3]}")


def _mount(disk: Path, size: int, *, again: bool = False) -> None:
    """Mount a tmpfs of so many bytes on a folder, in namespaces that end with this process; or change its size."""
    libc = ctypes.CDLL(None, use_errno=True)
    user, group = os.getuid(), os.getgid()
    if not again:
        _checked(libc.unshare(NEW_NAMESPACES))
        Path("/proc/self/setgroups").write_text("deny")
        Path("/proc/self/uid_map").write_text(f"0 {user} 1")
        Path("/proc/self/gid_map").write_text(f"0 {group} 1")
    options = f"size={-(-size // PAGE) * PAGE}".encode()
    _checked(libc.mount(b"tmpfs", os.fsencode(disk), b"tmpfs", REMOUNT if again else 0, options))


def _checked(result: int) -> None:
    if result != 0:
        code = ctypes.get_errno()
        raise OSError(code, f"{errno.errorcode.get(code)}: {os.strerror(code)}")


def _used(folder: Path) -> int:
    """Bytes that the files below a folder take on its disk."""
    return sum(path.stat().st_blocks * 512 for path in folder.rglob("*") if path.is_file())

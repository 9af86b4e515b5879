"""HDF5 files on a disk that fills up: the file of before stays, and the process lives on."""

import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest

from magnet_core.hdf5 import replacing_hdf5

FILLS_UP = """
import resource, sys
from pathlib import Path
import numpy as np
from magnet_core.hdf5 import replacing_hdf5
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]), resource.RLIM_INFINITY))
try:
    with replacing_hdf5(Path(sys.argv[1])) as file:
        for name in "abcdefgh":
            file[f"group/{name}"] = np.arange(5000.0)
            file[f"text/{name}"] = np.array(["x" * 40] * 50, dtype=object)
        file.create_dataset("packed", data=np.arange(9000), chunks=(500,), compression="gzip")
except OSError as error:
    sys.exit(f"{error.strerror}: {error.filename}")
"""


def test_what_is_written_is_read_back_and_replaces_the_file_of_before(tmp_path: Path) -> None:
    path = tmp_path / "x.h5"
    for size in (3, 40_000):
        with replacing_hdf5(path) as file:
            file.create_dataset(
                "values", data=np.arange(size), chunks=(1,) if size == 3 else (700,), compression="gzip"
            )
            file.attrs["size"] = size
        with h5py.File(path, "r") as read:
            np.testing.assert_array_equal(read["values"][:], np.arange(size))
            assert read.attrs["size"] == size
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("limit", [0, 100, 3_000, 50_000, 250_000])
def test_a_full_disk_raises_what_the_system_said_and_ends_no_process(limit: int, tmp_path: Path) -> None:
    path = tmp_path / "x.h5"
    path.write_bytes(b"before")
    command = [sys.executable, "-c", FILLS_UP, str(path), str(limit)]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stderr) == (1, f"File too large: {path}\n")
    assert path.read_bytes() == b"before"
    assert list(tmp_path.iterdir()) == [path]


def test_an_error_of_the_writer_leaves_the_file_of_before(tmp_path: Path) -> None:
    path = tmp_path / "x.h5"
    path.write_bytes(b"before")

    def write() -> None:
        with replacing_hdf5(path) as file:
            file["values"] = np.arange(3)
            raise KeyError("a mistake")

    with pytest.raises(KeyError, match="a mistake"):
        write()
    assert path.read_bytes() == b"before"

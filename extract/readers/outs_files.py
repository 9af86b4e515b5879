"""Files of a vendor's output folder, by their name or by their name behind a prefix, as archives hand them out.

In: a folder and a name such as `filtered_feature_bc_matrix.h5`. Out: the file, even if it is called
`GSM7990097_P1_filtered_feature_bc_matrix.h5`.
"""

from pathlib import Path

from magnet_core.errors import MagnetError


def files_named(folder: Path, name: str) -> list[Path]:
    """List the file of this name, or else the files whose names end with it, sorted."""
    exact = folder / name
    return [exact] if exact.is_file() else sorted(file for file in folder.glob(f"*{name}") if file.is_file())


def one_file(folder: Path, name: str) -> Path:
    """Find the one file of this name; no file, or several with prefixes, are an error that lists them."""
    files = files_named(folder, name)
    if len(files) != 1:
        raise MagnetError(
            folder,
            expected=f"the file {name}",
            found=", ".join(file.name for file in files) or "no such file",
            remedy="give the output folder of one slide, with the names that Space Ranger or Xenium gave its files",
        )
    return files[0]

"""HDF5 files of others, looked at before they are opened: whether what is to be read from them is there, and bounded.

In: a path, and the groups and datasets that will be read. Out: nothing, or one line. The file is opened within limits
(`magnet_core.confined`), as a damaged one may send the library round in circles, crash it, or claim terabytes. There,
every named part is looked up, the place of every chunk is compared with the size of the file, the size of every array
with the bytes that are stored of it, and text of variable length is read. Values themselves are left to the reader; but
HDF5 gives a packed chunk as much memory as it unpacks to, whatever its shape: one that may become large is unpacked.

Names are paths of datasets in the file. `{_index}` in one stands for the text of that attribute, of the group before
it; a name that ends with `?` may be missing; one that ends with `/` may be a group, all of which is looked at.
"""

import math
import re
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path

import h5py

from magnet_core.confined import confined
from magnet_core.file_kind import refuse_stand_in

LONGEST_TEXT = 1024  # bytes of one name; more is no name
SMALL_BYTES = 64 << 20  # an array of this size is read, whatever is stored of it
MOST_PER_STORED = 250  # bytes of an array per stored byte; sparse counts reach some 20
MOST_OBJECTS, MOST_DEPTH = 1000, 8  # below one name
DEFLATE, LZF = 1, 32000
FILTERS = {DEFLATE: "deflate", 2: "shuffle", 3: "fletcher32", LZF: "lzf"}
MOST_PER_PACKED = {DEFLATE: 1032, LZF: 90}  # bytes that one packed byte becomes at most, by the form of each
UNSEEN_BYTES = 256 << 20  # a chunk that cannot become more is not unpacked to see
CHECKSUM_BYTES = 4  # of fletcher32, where it is packed with the values
PART_BYTES = 1 << 20
TEXT_ROWS = 1 << 16  # read at a time
KINDS = "biufS"


def check_h5(path: Path, names: Sequence[str], *, expected: str, remedy: str) -> None:
    """Raise `MagnetError` unless all that lies at and below these names can be read, and fits the size of the file."""
    refuse_stand_in(path)
    size = path.stat().st_size
    confined(
        look_at,
        str(path.absolute()),
        list(names),
        where=path,
        expected=expected,
        remedy=remedy,
        seconds=8 + size // (50 << 20),
        max_bytes=(2 << 30) + size,
    )


def look_at(path: str, names: Sequence[str]) -> None:
    """Look at the named parts; what may not be read is a ValueError. Runs within limits."""
    size = Path(path).stat().st_size
    with h5py.File(path, "r") as file:
        for name in names:
            found = _find(file, name)
            if isinstance(found, h5py.Group) and "/" not in name[-2:]:
                raise ValueError(f"a group '{name}'")
            for place, part in _below(name.rstrip("/?"), found, depth=0):
                if Path(part.file.filename) != Path(path):
                    raise ValueError(f"'{place}', which lies in another file")
                if isinstance(part, h5py.Dataset):
                    _check_dataset(place, part, file_bytes=size)
                else:
                    dict(part.attrs)


def _find(file: h5py.File, name: str) -> h5py.Group | h5py.Dataset | None:
    group: h5py.Group | h5py.Dataset = file
    for step in name.rstrip("/?").split("/"):
        attribute = re.fullmatch(r"\{(\w+)\}", step)
        key = group.attrs[attribute[1]] if attribute else step
        if not isinstance(key, str) or not isinstance(group, h5py.Group):
            raise ValueError(f"no part '{name}'")
        if name.endswith("?") and key not in group:
            return None
        group = group[key]
        if not isinstance(group, h5py.Group | h5py.Dataset):
            raise ValueError(f"no part '{name}'")
    return group


def _below(
    name: str, part: h5py.Group | h5py.Dataset | None, *, depth: int
) -> Iterator[tuple[str, h5py.Group | h5py.Dataset]]:
    """Go through a part and all that lies below it."""
    if part is None:
        return
    if depth > MOST_DEPTH or (isinstance(part, h5py.Group) and len(part) > MOST_OBJECTS):
        raise ValueError(f"groups too deep or too many in '{name}'")
    yield name, part
    if isinstance(part, h5py.Group):
        for key in part:
            yield from _below(f"{name}/{key}", part[key], depth=depth + 1)


def _check_dataset(name: str, dataset: h5py.Dataset, *, file_bytes: int) -> None:
    is_text = h5py.check_string_dtype(dataset.dtype) is not None
    if dataset.dtype.kind not in KINDS and not is_text:
        raise ValueError(f"'{name}' of type {dataset.dtype}")
    if dataset.dtype.kind == "S" and dataset.dtype.itemsize > LONGEST_TEXT:
        raise ValueError(f"'{name}' with texts of {dataset.dtype.itemsize} bytes, more than {LONGEST_TEXT}")
    if dataset.shape is None or dataset.is_virtual or dataset.external:
        raise ValueError(f"'{name}' without values of its own")
    _check_filters(name, dataset)
    nbytes, stored = math.prod(dataset.shape) * dataset.dtype.itemsize, _stored_bytes(name, dataset, file_bytes)
    if nbytes > max(SMALL_BYTES, MOST_PER_STORED * stored):
        raise ValueError(f"'{name}' of shape {dataset.shape} with no more than {stored} bytes stored of it")
    if dataset.chunks is not None:
        _check_chunks(name, dataset)
    if dataset.dtype.kind == "O":
        _check_texts(name, dataset)


def _check_filters(name: str, dataset: h5py.Dataset) -> None:
    for code in _filters(dataset):
        if code not in FILTERS:
            raise ValueError(f"'{name}' compressed by filter {code}, which is none of {', '.join(FILTERS.values())}")


def _filters(dataset: h5py.Dataset) -> list[int]:
    """Numbers of the filters that chunks pass through when they are written, in this order."""
    properties = dataset.id.get_create_plist()
    return [properties.get_filter(position)[0] for position in range(properties.get_nfilters())]


def _check_chunks(name: str, dataset: h5py.Dataset) -> None:
    """Refuse a chunk whose packed bytes become more than the chunk has: HDF5 doubles its memory until all are there."""
    codes = _filters(dataset)
    packing = [code for code in codes if code in MOST_PER_PACKED]
    if len(packing) > 1:
        raise ValueError(f"'{name}' compressed {len(packing)} times over")
    nbytes = math.prod(dataset.chunks) * dataset.dtype.itemsize + CHECKSUM_BYTES
    suspects: list[tuple[int, ...]] = []
    for code in packing:
        most, skipped = MOST_PER_PACKED[code], 1 << codes.index(code)

        def look(chunk: h5py.h5d.StoreInfo, most: int = most, skipped: int = skipped) -> None:
            if chunk.size * most > max(UNSEEN_BYTES, nbytes) and not chunk.filter_mask & skipped:
                suspects.append(tuple(chunk.chunk_offset))

        dataset.id.chunk_iter(look)
    for offset in suspects:
        if packing == [LZF] or _unpacks_to_more(dataset.id.read_direct_chunk(offset)[1], nbytes):
            raise ValueError(f"'{name}' with a chunk that unpacks to more than the {nbytes} bytes it has")


def _unpacks_to_more(packed: bytes, nbytes: int) -> bool:
    """Tell whether a stream of deflate is longer than it should be, without keeping what it unpacks to."""
    unpacker, unpacked = zlib.decompressobj(), 0
    while not unpacker.eof and unpacked <= nbytes:
        try:
            part = unpacker.decompress(packed, PART_BYTES)
        except zlib.error as error:
            raise ValueError(str(error)) from error
        packed, unpacked = unpacker.unconsumed_tail, unpacked + len(part)
        if not part and not packed:  # it is cut short, which the reader tells of
            break
    return unpacked > nbytes


def _stored_bytes(name: str, dataset: h5py.Dataset, file_bytes: int) -> int:
    """Bytes stored of a dataset; a chunk beyond the end of the file is a ValueError."""
    if dataset.chunks is None:
        stored: int = dataset.id.get_storage_size()
        offset = dataset.id.get_offset() or 0
        if stored + offset > file_bytes:
            raise ValueError(f"'{name}', which reaches beyond the end of the file")
        return stored
    nbytes = math.prod(dataset.shape) * dataset.dtype.itemsize
    if math.prod(dataset.chunks) * dataset.dtype.itemsize > max(SMALL_BYTES, min(nbytes, MOST_PER_STORED * file_bytes)):
        raise ValueError(f"'{name}' in chunks of shape {dataset.chunks}")
    chunks: list[tuple[int, int]] = []
    dataset.id.chunk_iter(lambda chunk: chunks.append((chunk.byte_offset, chunk.size)))
    if any(offset + size > file_bytes for offset, size in chunks):
        raise ValueError(f"'{name}', which reaches beyond the end of the file")
    return min(sum(size for _, size in chunks), file_bytes)


def _check_texts(name: str, dataset: h5py.Dataset) -> None:
    if dataset.ndim > 1:
        raise ValueError(f"'{name}' of shape {dataset.shape}")
    for start in range(0, len(dataset) if dataset.ndim else 0, TEXT_ROWS):
        longest = max(map(len, dataset[start : start + TEXT_ROWS]), default=0)
        if longest > LONGEST_TEXT:
            raise ValueError(f"'{name}' with a text of {longest} bytes, more than {LONGEST_TEXT}")

"""Whether the pages of an LMDB file hold together, told before LMDB itself looks at them.

In: a path. Out: nothing, or an error that names the page. LMDB trusts its pages: one flipped bit in a length or a page
number, and it reads outside its map, which ends the process. So each page of the tree is read and checked first, with
bounds before every read. Of a value that lies in pages of its own only the place is checked, so that a file of 100 GB
costs the few pages that name its values; for the same reason this is not `lmdb.verify`, which looks at all of them.

The format is that of LMDB 0.9, data version 1, on 64-bit little-endian machines, with a single database:

    page       number u64, pad u16, flags u16; then lower and upper bound of its free room u16 each, or the number of
               pages that a value takes u32; offsets of nodes u16 each; free room; nodes, without a gap, to its end
    meta page  pages 0 and 1; of the two the one with the higher transaction counts, see `_META`
    node       size u32 of the value, or page number of the child u48; flags u16 of a leaf's; size of the key u16; key;
               value, or the number u64 of its first page
"""

import os
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

# magic, version; page size, flags, depth and root of the list of free pages; flags, depth and root of the main
# database; last page, transaction
_META = struct.Struct("<II16xIHH32xQ4xHH32xQQQ")
_PAGE = struct.Struct("<QxxHHH")
_NODE = struct.Struct("<HHHH")
_NUMBER = struct.Struct("<Q")

_HEAD = _PAGE.size
_MAGIC, _VERSION = 0xBEEFC0DE, 1
_BRANCH, _LEAF, _VALUE, _META_PAGE = 1, 2, 4, 8  # flags of a page
_OWN_PAGES = 1  # flag of a node whose value lies in pages of its own
_NUMBERS, _NO_FOLDER = 8, 0x4000  # flags of the list of free pages: its keys are numbers; the file stands alone
_NO_ROOT = (1 << 64) - 1
_LEAST_PAGE, _MOST_PAGE = 256, 1 << 15  # bytes
_MOST_LEVELS = 32
_UNWRITTEN = 64  # last pages that LMDB may count and, as nothing is on them, not have written yet


class ForeignFileError(Exception):
    """The file is no LMDB file, or one of another kind of machine."""


class CutShortError(Exception):
    """The file ends before its last page."""


class PageFaultError(Exception):
    """A page is not as LMDB writes it."""

    def __init__(self, page: int, found: str) -> None:
        super().__init__(page, found)
        self.page = page
        self.found = found


class _Meta(NamedTuple):
    """What a meta page says."""

    magic: int
    version: int
    page_bytes: int
    free_flags: int
    free_depth: int
    free_root: int
    flags: int
    depth: int
    root: int
    last_page: int
    transaction: int


class _Node(NamedTuple):
    """One node of a leaf or branch; `number` is the size of the value or the page of the child, `at` the value's."""

    key: bytes
    in_own_pages: bool
    number: int
    at: int


def check_pages(path: Path, *, writes: bool = False) -> None:
    """Check all that LMDB relies on when it reads, and with `writes` also what it relies on when it writes.

    Raises ForeignFileError, CutShortError or PageFaultError.
    """
    descriptor = os.open(path, os.O_RDONLY)
    try:
        size = os.fstat(descriptor).st_size
        meta = _read_meta(descriptor, size)
        needed = (meta.last_page + 1) * meta.page_bytes
        if size < needed - (_UNWRITTEN * meta.page_bytes if writes else 0):
            raise CutShortError(f"{size} bytes of {needed}")
        pages = _Pages(descriptor, meta.page_bytes, min(meta.last_page + 1, size // meta.page_bytes))
        for node, content in pages.leaves(meta.root, meta.depth, order=bytes, least=2):
            if node.in_own_pages:
                pages.check_value(node, content, opens=writes)
        if writes:
            pages.check_free(meta)
        pages.check_apart()
    finally:
        os.close(descriptor)


def _read_meta(descriptor: int, size: int) -> _Meta:
    """Check both meta pages, and return what the one says that counts."""
    metas: list[_Meta] = []
    for page in (0, 1):
        at = page * (metas[0].page_bytes if metas else 0)
        if size < at + _HEAD + _META.size:
            raise ForeignFileError(f"{size} bytes")
        content = os.pread(descriptor, _HEAD + _META.size, at)
        number, flags, _, _ = _PAGE.unpack_from(content)
        meta = _Meta(*_META.unpack_from(content, _HEAD))
        if (number, flags, meta.magic) != (page, _META_PAGE, _MAGIC):
            raise ForeignFileError(f"no meta page {page}")
        if meta.version != _VERSION:
            raise ForeignFileError(f"data version {meta.version}, not {_VERSION}")
        page_bytes = meta.page_bytes
        if not _LEAST_PAGE <= page_bytes <= _MOST_PAGE or page_bytes & (page_bytes - 1):
            raise PageFaultError(page, f"pages of {page_bytes} bytes")
        metas.append(meta)
    first, second = metas
    if first.page_bytes != second.page_bytes:
        raise PageFaultError(1, f"pages of {second.page_bytes} bytes, not {first.page_bytes}")
    # Transaction n is written to page n mod 2, over that before the last.
    if first.transaction % 2 or abs(first.transaction - second.transaction) > 1:
        raise PageFaultError(0, f"transactions {first.transaction} and {second.transaction}")
    page = int(second.transaction > first.transaction)
    meta = metas[page]
    if meta.flags or meta.free_flags & ~_NO_FOLDER != _NUMBERS or not meta.last_page:
        raise PageFaultError(page, f"flags {meta.flags} and {meta.free_flags}, last page {meta.last_page}")
    return meta


class _Pages:
    """The pages of one open file, each of which may be used once."""

    def __init__(self, descriptor: int, page_bytes: int, num_pages: int) -> None:
        self._descriptor = descriptor
        self._page_bytes = page_bytes
        self._num_pages = num_pages
        self._seen: set[int] = {0, 1}
        self._spans: list[tuple[int, int]] = []  # first and number of the pages of values, and of free pages

    def leaves(
        self, root: int, depth: int, *, order: Callable[[bytes], Any], least: int
    ) -> Iterator[tuple[_Node, bytes]]:
        """Yield all nodes of the leaves of a tree, each with its page; `least` nodes are on a page that branches."""
        if depth > _MOST_LEVELS or (depth == 0) != (root == _NO_ROOT):
            raise PageFaultError(root, f"a root {depth} levels above the leaves")
        if depth:
            yield from self._below(root, depth, order, least, (None, None))

    def _below(
        self, page: int, level: int, order: Callable[[bytes], Any], least: int, bounds: tuple[Any, Any]
    ) -> Iterator[tuple[_Node, bytes]]:
        """Yield the nodes of all leaves below a page, `level` 1 for a leaf, whose keys lie within bounds."""
        if page in self._seen:
            raise PageFaultError(page, "a second way to it")
        content = self._read(page, 1)
        self._seen.add(page)
        nodes = self._nodes(content, page, is_leaf=level == 1, least=least)
        keys = [order(node.key) for node in nodes[level > 1 :]]  # the first key of a branch counts as lowest
        low, high = bounds
        within = [key for key in (low, *keys, high) if key is not None]
        is_low_too = level == 1 and low is not None and within[0] == within[1]  # a leaf may begin with its bound
        if any(one >= other for one, other in zip(within[is_low_too:], within[is_low_too + 1 :], strict=False)):
            raise PageFaultError(page, "keys out of order")
        if level == 1:
            yield from ((node, content) for node in nodes)
            return
        for node, lowest, beyond in zip(nodes, (low, *keys), (*keys, high), strict=True):
            yield from self._below(node.number, level - 1, order, least, (lowest, beyond))

    def _nodes(self, content: bytes, page: int, *, is_leaf: bool, least: int) -> list[_Node]:
        """Cut a page of the tree into its nodes."""
        number, flags, lower, upper = _PAGE.unpack_from(content)
        if number != page or flags != (_LEAF if is_leaf else _BRANCH):
            raise PageFaultError(page, f"number {number}, flags {flags}")
        count = (lower - _HEAD) // 2
        if lower % 2 or count < (1 if is_leaf else least) or not lower <= upper <= len(content):
            raise PageFaultError(page, f"free room from {lower} to {upper}")
        nodes, spans = [], []
        for at in struct.unpack_from(f"<{count}H", content, _HEAD):
            if not upper <= at <= len(content) - _NODE.size:
                raise PageFaultError(page, f"a node at {at}")
            low, middle, high, key_bytes = _NODE.unpack_from(content, at)
            number = low | middle << 16 | (0 if is_leaf else high << 32)
            value_at = at + _NODE.size + key_bytes
            in_own_pages = is_leaf and high == _OWN_PAGES
            stop = value_at + (_NUMBER.size if in_own_pages else number if is_leaf else 0)
            if stop > len(content) or (is_leaf and (high not in (0, _OWN_PAGES) or not key_bytes)):
                raise PageFaultError(page, f"a node of {stop - at} bytes at {at}, flags {high}")
            nodes.append(_Node(content[at + _NODE.size : value_at], in_own_pages, number, value_at))
            spans.append((at, stop + stop % 2))
        spans.sort()
        if [at for at, _ in spans] + [len(content)] != [upper, *(stop for _, stop in spans)]:
            raise PageFaultError(page, "nodes that overlap or leave a gap")
        return nodes

    def check_value(self, node: _Node, content: bytes, *, opens: bool) -> int:
        """Check the pages of a value and return the first; `opens` looks at that, which only a writer does."""
        (first,) = _NUMBER.unpack_from(content, node.at)
        count = (_HEAD - 1 + node.number) // self._page_bytes + 1
        if opens:
            number, flags, low, high = _PAGE.unpack_from(self._read(first, 1))
            stated = low | high << 16
            if number != first or flags != _VALUE or stated < count:
                raise PageFaultError(first, f"number {number}, flags {flags}, {stated} pages of a value of {count}")
            count = stated
        self._require(first, count)
        self._spans.append((first, count))
        return int(first)

    def check_free(self, meta: _Meta) -> None:
        """Check the list of free pages, whose values are their count and their numbers, the highest first."""
        for node, content in self.leaves(meta.free_root, meta.free_depth, order=_as_number, least=1):
            if node.in_own_pages:
                first = self.check_value(node, content, opens=True)
                stored = self._read(first, (_HEAD - 1 + node.number) // self._page_bytes + 1)[_HEAD:][: node.number]
            else:
                stored = content[node.at :][: node.number]
            numbers = [number for (number,) in _NUMBER.iter_unpack(stored[: len(stored) // 8 * 8])]
            if len(node.key) != _NUMBER.size or not numbers or numbers[0] >= len(numbers) or len(stored) % 8:
                raise PageFaultError(meta.free_root, "a list of free pages of another length")
            free = numbers[1 : numbers[0] + 1]
            if any(not 2 <= page <= meta.last_page for page in free) or free != sorted(set(free), reverse=True):
                raise PageFaultError(meta.free_root, "a list of free pages out of order")
            self._spans += [(page, 1) for page in free]

    def check_apart(self) -> None:
        """No page may have two uses."""
        end = 0
        for first, count in sorted([*self._spans, *((page, 1) for page in self._seen)]):
            if first < end:
                raise PageFaultError(first, "two uses of it")
            end = first + count

    def _read(self, first: int, count: int) -> bytes:
        self._require(first, count)
        content = os.pread(self._descriptor, count * self._page_bytes, first * self._page_bytes)
        if len(content) < count * self._page_bytes:
            raise CutShortError(f"an end within page {first}")
        return content

    def _require(self, first: int, count: int) -> None:
        if not 2 <= first <= self._num_pages - count:
            raise PageFaultError(first, f"{count} of it, of {self._num_pages} pages in all")


def _as_number(key: bytes) -> int:
    return int.from_bytes(key, "little")

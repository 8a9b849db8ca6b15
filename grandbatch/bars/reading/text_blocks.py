"""Byte ranges of text files, cut at line ends.

A line belongs to the block in which it starts; so blocks of any size share out a file's lines, each
to exactly one.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import BinaryIO

import numpy as np
import numpy.typing as npt

from grandbatch.bars.inputs.digests import LEAF_BYTES
from grandbatch.bars.inputs.opening import open_raw
from grandbatch.errors import InputError
from grandbatch.kernels.bars.bar_rules import count_line_ends, locate_lines
from grandbatch.kernels.bars.csv_rows import PADDING

MAX_LINE_BYTES = 1024 * 1024
_STEP_BYTES = 64 * 1024
_LOOK_BYTES = 4096
_LINE_ENDS = 10, 13

Bytes = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class CsvBlock:
    """One byte range of one text file."""

    path: str
    """Or URL."""
    start: int
    stop: int
    size: int
    """Bytes of the whole file."""
    data_start: int
    """Where the file's first line after the header starts."""

    @property
    def n_bytes(self) -> int:
        """Bytes of the block."""
        return self.stop - self.start

    @property
    def read_on(self) -> None:
        """What it is read on from, with others; a text is read by itself."""

    def most_rows(self, n_fields: int) -> int:
        """Return how many rows of so many fields it has at most."""
        # a line has a delimiter or an end for each field, and most have more
        return self.n_bytes // n_fields + 1


@dataclass(frozen=True)
class BlockText:
    """The lines that start in a block."""

    padded: Bytes
    """The lines, and `PADDING` line feeds behind them; read-only."""
    n_lines: int
    """Lines, the blank ones too."""
    leaves: tuple[bytes, ...]
    """Digests of the 4 MiB leaves of the block's bytes."""

    @property
    def data(self) -> Bytes:
        """The lines."""
        return self.padded[:-PADDING]


def cut_file(path: str, size: int, data_start: int, block_bytes: int) -> list[CsvBlock]:
    """Cut a file into blocks of `block_bytes`."""
    return [
        CsvBlock(path, start, min(start + block_bytes, size), size, data_start)
        for start in range(0, size, block_bytes)
    ]


def read_text(block: CsvBlock, hashed: bool) -> BlockText:
    """Read the lines that start in a block, with the leaves' digests if `hashed`.

    Raises
    ------
    InputError
        If a line is longer than 1 MiB.
    """
    size = block.stop - block.start
    buffer = np.empty(size + MAX_LINE_BYTES + PADDING, np.uint8)
    with open_raw(block.path, size + 2 * _STEP_BYTES, block.size) as file:
        before = b""
        if block.start > block.data_start:
            file.seek(block.start - 1)
            before = file.read(1)
        file.seek(block.start)
        if _fill(file, buffer[:size]) < size:
            raise InputError(f"{block.path}: the file became shorter while it was read; run again")
        leaves: tuple[bytes, ...] = ()
        if hashed:
            leaves = tuple(
                hashlib.sha256(buffer[at : min(at + LEAF_BYTES, size)].data).digest()
                for at in range(0, size, LEAF_BYTES)
            )
        begin = _first_line(block, buffer[:size], before)
        end = size
        if begin < size and buffer[size - 1] not in _LINE_ENDS:
            end = _finish_line(file, block, buffer, size)
    _refuse_long_lines(block, buffer[begin:end], begin)
    return text_of(buffer[begin : end + PADDING], leaves)


def text_of(padded: Bytes, leaves: tuple[bytes, ...] = ()) -> BlockText:
    """Make a text of lines with room for `PADDING` bytes behind them, which are written."""
    padded[-PADDING:] = 10
    padded.flags.writeable = False  # kernels are compiled for such arrays alone
    data = padded[:-PADDING]
    n_lines = count_line_ends(data)
    if len(data) and data[-1] not in _LINE_ENDS:
        n_lines += 1
    return BlockText(padded, n_lines, leaves)


def _first_line(block: CsvBlock, data: Bytes, before: bytes) -> int:
    """Where the first line starts that starts in the block; the block's size if none does.

    `before` is the byte before the block, empty where that is none of a line of bars.
    """
    if not before:
        return min(block.data_start - block.start, len(data))
    # a return and the line feed behind it are one end
    if before == b"\n" or (before == b"\r" and data[0] != 10):
        return 0
    for at in range(0, len(data), _STEP_BYTES):
        end = _first_end(data[at : at + _STEP_BYTES])
        if end is not None:
            begin = at + end + 1
            is_pair = data[begin - 1] == 13 and begin < len(data) and data[begin] == 10
            return begin + is_pair
    return len(data)


def _first_end(data: Bytes) -> int | None:
    """Where the first line ends; None if none does."""
    ends = np.flatnonzero(_are_ends(data))
    return int(ends[0]) if len(ends) else None


def _are_ends(data: Bytes) -> npt.NDArray[np.bool_]:
    found: npt.NDArray[np.bool_] = data == 10
    found |= data == 13
    return found


def _finish_line(file: BinaryIO, block: CsvBlock, buffer: Bytes, end: int) -> int:
    """Read on behind the block to the end of its last line."""
    while True:
        room = buffer[end : min(end + _STEP_BYTES, len(buffer) - PADDING)]
        count = _fill(file, room)
        last = _first_end(room[:count])
        if last is not None:
            return end + last + 1
        end += count
        if count < len(room):
            return end
        if end == len(buffer) - PADDING:
            raise _too_long(block, block.stop)


def _refuse_long_lines(block: CsvBlock, lines: Bytes, begin: int) -> None:
    """Raise if a line is too long, wherever blocks are cut."""
    # such a line covers a whole window of half that length
    half = MAX_LINE_BYTES // 2
    suspicious = any(
        not _are_ends(window[:_LOOK_BYTES]).any() and not _are_ends(window).any()
        for window in (lines[at : at + half] for at in range(0, len(lines) - half + 1, half))
    )
    if not suspicious:
        return
    ends = np.concatenate([[-1], np.flatnonzero(_are_ends(lines)), [len(lines)]])
    too_long = np.flatnonzero(np.diff(ends) - 1 > MAX_LINE_BYTES)
    if len(too_long):
        raise _too_long(block, block.start + begin + int(ends[too_long[0]]) + 1)


def _too_long(block: CsvBlock, after: int) -> InputError:
    return InputError(
        f"{block.path}: no line ends in {MAX_LINE_BYTES:,} bytes after byte {after:,}; is it CSV?"
    )


def _fill(file: BinaryIO, room: Bytes) -> int:
    """Read into `room` as much as there is; return how much."""
    view = room.data
    count = 0
    while count < len(view):
        got = file.readinto(view[count:])  # type: ignore[attr-defined]  # typeshed: RawIOBase only
        if not got:
            break
        count += got
    return count


@dataclass(frozen=True)
class Lines:
    """Where some lines of a text are; (n,) int64 each."""

    starts: npt.NDArray[np.int64]
    stops: npt.NDArray[np.int64]
    numbers: npt.NDArray[np.int64]
    """Which line of the text each is, from 0, blank ones counted."""


def find_lines(text: BlockText, rows: npt.NDArray[np.int64]) -> Lines:
    """Find some rows: their indices among the lines that are not empty, ascending."""
    lines = Lines(*(np.empty(len(rows), np.int64) for _ in range(3)))
    locate_lines(text.data, rows, lines.starts, lines.stops, lines.numbers)
    return lines

"""Zstandard frames of overlapping windows, written without searching for the repeats.

A window repeats all but `stride` rows of the one before, at a distance known beforehand. A
compressor finds that out by reading every byte of every window; here the frame is written down
directly: each new row once, as literals, and for each window one match that copies the rest.
Any zstd decoder reads the result. The format is that of RFC 8878, section 3.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

_MAGIC = (0xFD2FB528).to_bytes(4, "little")
_BLOCK_MAX = 128 * 1024
_RAW_BLOCK, _COMPRESSED_BLOCK = 0, 2
_ALL_RLE_MODES = 0b01_01_01_00

# RFC 8878, 3.1.1.3.2.1.1: (baseline, extra bits) of the codes that are no plain values
_LITERAL_CODES = [(n, 0) for n in range(16)] + [
    *((16, 1), (18, 1), (20, 1), (22, 1), (24, 2), (28, 2), (32, 3), (40, 3), (48, 4), (64, 6)),
    *((1 << bits, bits) for bits in range(7, 17)),
]
_MATCH_CODES = [(n, 0) for n in range(3, 35)] + [
    *((35, 1), (37, 1), (39, 1), (41, 1), (43, 2), (47, 2), (51, 3), (59, 3), (67, 4), (83, 4)),
    *((99, 5), (131, 7)),
    *(((1 << bits) + 3, bits) for bits in range(8, 17)),
]


def can_repeat(window_bytes: int, stride_bytes: int) -> bool:
    """Whether windows of this size can be written as repeats: two rows shared, two to a block."""
    return 2 * window_bytes <= _BLOCK_MAX and window_bytes - stride_bytes >= 3


def encode_repeats(
    runs: Sequence[npt.NDArray[np.float32]], sequence_length: int, stride: int
) -> bytes:
    """Write the windows of some runs of feature rows as one zstd frame.

    Parameters
    ----------
    runs : sequence of (T_i, F) float32, C-contiguous
        Feature rows of windows in one segment each: `(n_i - 1) * stride + sequence_length` rows
        for n_i windows.
    sequence_length, stride : int
        Rows in a window, and between the starts of neighbours.

    Returns
    -------
    bytes
        The frame. It decodes to the windows of all runs, (sum n_i, sequence_length, F) float32.
    """
    row_bytes = runs[0].shape[1] * 4
    counts = tuple((len(run) - sequence_length) // stride + 1 for run in runs)
    out: list[bytes | memoryview] = []
    literals = iter(run.reshape(-1).view(np.uint8).data for run in runs)
    data, at = memoryview(b""), 0
    for fixed, size in _skeleton(counts, sequence_length * row_bytes, stride * row_bytes):
        if at == len(data):
            data, at = next(literals), 0
        out += [fixed, data[at : at + size]]
        at += size
    return b"".join(out)


def rows_of_repeats(
    frame: npt.NDArray[np.uint8],
    counts: tuple[int, ...],
    sequence_length: int,
    stride: int,
    out: npt.NDArray[np.float32],
) -> bool:
    """Take the rows of runs out of a frame that `encode_repeats` made of them.

    Nothing has to be decoded for that: each row is there as it is, once.

    Parameters
    ----------
    frame : (n,) uint8
    counts : tuple of int
        Windows of each run.
    sequence_length, stride : int
    out : (R, F) float32
        Overwritten from its first row on with the rows of all runs; must have room.

    Returns
    -------
    bool
        Whether it is such a frame, to the byte; if not, what is in `out` means nothing.
    """
    row_bytes = out.shape[1] * 4
    # many small pieces: of memory, not of arrays
    target, raw = out.reshape(-1).view(np.uint8).data, frame.data
    at = n = 0
    for fixed, size in _skeleton(counts, sequence_length * row_bytes, stride * row_bytes):
        literals = at + len(fixed)
        if raw[at:literals] != fixed or len(raw) < literals + size:
            return False
        at = literals + size
        target[n : n + size] = raw[literals:at]
        n += size
    return at == len(raw)


def rows_of_equal_repeats(
    frames: npt.NDArray[np.uint8],
    counts: tuple[int, ...],
    sequence_length: int,
    stride: int,
    out: npt.NDArray[np.float32],
    slots: npt.NDArray[np.integer[Any]],
) -> bool:
    """Take the rows of runs out of several frames of equally many windows, as `rows_of_repeats`.

    Parameters
    ----------
    frames : (k, n) uint8
    counts : tuple of int
        Windows of each run, in every frame.
    sequence_length, stride : int
    out : (S, R, F) float32, C-contiguous
    slots : (k,) int
        Which of `out` is overwritten with the rows of each frame; must have room.

    Returns
    -------
    bool
        Whether all are such frames, to the byte; if not, what is in `out` means nothing.
    """
    row_bytes, width = out.shape[2] * 4, int(frames.shape[1])
    target = out.reshape(len(out), -1).view(np.uint8)
    at = n = 0
    for fixed, size in _skeleton(counts, sequence_length * row_bytes, stride * row_bytes):
        literals = at + len(fixed)
        if literals + size > width:
            return False
        if not np.array_equiv(frames[:, at:literals], np.frombuffer(fixed, np.uint8)):
            return False
        at = literals + size
        target[slots, n : n + size] = frames[:, literals:at]
        n += size
    return at == width


def pack_windows(
    windows: npt.NDArray[np.float32],
    runs: tuple[int, ...],
    stride: int,
    out: npt.NDArray[np.float32],
) -> None:
    """Copy the rows that overlapping windows were cut from, each once.

    Parameters
    ----------
    windows : (C, L, F) float32
        The first of them are those of the runs, in order.
    runs : tuple of int
        Numbers of windows that follow each other by `stride` rows, and share the others.
    stride : int
    out : (R, F) float32
        Overwritten from its first row on; must have room.
    """
    L, F = windows.shape[1:]
    at = first = 0
    for count in runs:
        out[at : at + L] = windows[first]
        at += L
        new = out[at : at + (count - 1) * stride].reshape(-1, stride, F)
        new[:] = windows[first + 1 : first + count, L - stride :]
        at += (count - 1) * stride
        first += count


@lru_cache(maxsize=256)
def _skeleton(
    counts: tuple[int, ...], window_bytes: int, stride_bytes: int
) -> tuple[tuple[bytes, int], ...]:
    """All of a frame but its literals: bytes that precede some of these, and how many they are.

    The literals are the runs' rows, one after the other.
    """
    content_bytes = sum(counts) * window_bytes
    # single segment, four bytes of content size, no checksum (crc32c is the store's)
    fixed = _MAGIC + b"\xa0" + content_bytes.to_bytes(4, "little")
    unit_limit = _BLOCK_MAX // window_bytes
    shared = window_bytes - stride_bytes
    parts = []
    for which, count in enumerate(counts):
        final_run = which == len(counts) - 1
        # the first window's shared rows; then one unit a window: its new rows, and the match
        # with which the next begins; then the new rows of the last
        parts.append((fixed + _block_header(_RAW_BLOCK, shared, last=False), shared))
        fixed, left = b"", count - 1
        while left:
            units = min(unit_limit, left)
            new = units * stride_bytes
            head, tail = _compressed_parts(units, stride_bytes, shared)
            size = len(head) + new + len(tail)
            header = _block_header(_COMPRESSED_BLOCK, size, last=False)
            parts.append((fixed + header + head, new))
            fixed = tail
            left -= units
        last = _block_header(_RAW_BLOCK, stride_bytes, last=final_run)
        parts.append((fixed + last, stride_bytes))
        fixed = b""
    return tuple(parts)


def _block_header(kind: int, size: int, *, last: bool) -> bytes:
    return (int(last) | kind << 1 | size << 3).to_bytes(3, "little")


@lru_cache(maxsize=1024)
def _compressed_parts(units: int, literal_bytes: int, match_bytes: int) -> tuple[bytes, bytes]:
    """Everything of a block of equal sequences but its literals: what precedes and follows."""
    total = units * literal_bytes
    head = (0b11 << 2 | total << 4).to_bytes(3, "little")
    literal_code, literal_extra, literal_bits = _code(_LITERAL_CODES, literal_bytes)
    match_code, match_extra, match_bits = _code(_MATCH_CODES, match_bytes)
    offset_value = match_bytes + 3  # the match reaches back by its own length; 1..3 are special
    offset_code = offset_value.bit_length() - 1
    offset_extra = offset_value - (1 << offset_code)
    one = literal_extra | match_extra << literal_bits
    one |= offset_extra << (literal_bits + match_bits)
    width = literal_bits + match_bits + offset_code
    stream = 1 << (units * width)  # the bit that marks the stream's end
    for unit in range(units):
        stream |= one << (unit * width)
    count = bytes([units]) if units < 128 else bytes([(units >> 8) + 128, units & 255])
    tail = count + bytes([_ALL_RLE_MODES, literal_code, offset_code, match_code])
    return head, tail + stream.to_bytes(units * width // 8 + 1, "little")


def _code(table: list[tuple[int, int]], value: int) -> tuple[int, int, int]:
    """Code, extra value and extra bits that stand for a length."""
    for code in range(len(table) - 1, -1, -1):
        baseline, bits = table[code]
        if baseline <= value:
            return code, value - baseline, bits
    raise AssertionError(f"no code for {value}")

"""Loops over texts that lie scattered in a block: joining, copying, numbering equal ones."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from grandbatch.kernels.compilation import compiled

Bytes = npt.NDArray[np.uint8]
Int64 = npt.NDArray[np.int64]


@compiled
def join_texts(
    data: Bytes, first: Int64, second: Int64, count: int, out: Bytes, places: Int64
) -> None:
    """Copy pairs of texts back to back, a blank between the two of a pair.

    Parameters
    ----------
    data : (B,) uint8
        Where the texts are.
    first, second : (2, T) int64
        Where they start and stop.
    count : int
        Pairs to join, from the first on.
    out : (n,) uint8
        Written; room for all texts and the blanks.
    places : (2, count) int64
        Written: where the joined texts start and stop in `out`.
    """
    end = 0
    for row in range(count):
        places[0, row] = end
        for at in range(first[0, row], first[1, row]):
            out[end] = data[at]
            end += 1
        out[end] = 32
        end += 1
        for at in range(second[0, row], second[1, row]):
            out[end] = data[at]
            end += 1
        places[1, row] = end


@compiled
def copy_field(
    data: Bytes,
    starts: Int64,
    stops: Int64,
    field: int,
    delimiter: int,
    out: Bytes,
    offsets: npt.NDArray[np.int32],
) -> None:
    """Copy one field of each line, without the quotes around it, back to back.

    Two quotes within quotes are one; what stands behind a closing quote belongs to the field.

    Parameters
    ----------
    data : (B,) uint8
        Where the lines are.
    starts, stops : (T,) int64
        Where each starts and stops; it has more fields than `field`, and its quotes close.
    field : int
        Which field.
    delimiter : int
        Byte between fields.
    out : (n,) uint8
        Written; room for all lines.
    offsets : (T + 1,) int32
        Written: where each text starts in `out`, and where the last one stops.
    """
    end = 0
    for row in range(len(starts)):
        offsets[row] = end
        at, stop = starts[row], stops[row]
        for number in range(field + 1):
            within = at < stop and data[at] == 34
            at += within
            while at < stop and (within or data[at] != delimiter):
                if within and data[at] == 34:
                    within = at + 1 < stop and data[at + 1] == 34
                    at += 1
                    if not within:
                        continue
                if number == field:
                    out[end] = data[at]
                    end += 1
                at += 1
            at += 1
    offsets[len(starts)] = end


@compiled
def number_texts(
    data: Bytes,
    texts: Int64,
    row: int,
    stop: int,
    slots: npt.NDArray[np.int32],
    known: Int64,
    n_known: int,
    codes: npt.NDArray[np.int32],
) -> tuple[int, int]:
    """Give equal texts equal numbers, counted up from 0 as they first come.

    Parameters
    ----------
    data : (B,) uint8
        Where the texts are.
    texts : (2, T) int64
        Where they start and stop.
    row, stop : int
        The first text to number, and where to stop.
    slots : (2**k,) int32
        Hash table of the numbers, -1 where empty. Read and written.
    known : (2, n) int64
        Where the text of each number first came; n is less than 2**k. Read and written.
    n_known : int
        Numbers in use.
    codes : (stop,) int32
        Written: the number of each text.

    Returns
    -------
    row : int
        `stop`, or the first text that has no room in `known`.
    n_known : int
        Numbers in use now.
    """
    code = -1
    while row < stop:
        start = texts[0, row]
        length = texts[1, row] - start
        slot = 0
        if code < 0 or not _is_text(data, known, code, start, length):
            slot = _hash(data, start, length) & (len(slots) - 1)
            code = slots[slot]
            while code >= 0 and not _is_text(data, known, code, start, length):
                slot = (slot + 1) & (len(slots) - 1)
                code = slots[slot]
        if code < 0:
            if n_known == known.shape[1]:
                return row, n_known
            code = n_known
            slots[slot] = code
            known[0, code], known[1, code] = start, start + length
            n_known += 1
        codes[row] = code
        row += 1
    return row, n_known


@compiled
def _is_text(data, known, code, start, length):  # type: ignore[no-untyped-def]
    at = known[0, code]
    if known[1, code] - at != length:
        return False
    unlike = 0
    for i in range(length):
        unlike |= data[at + i] ^ data[start + i]
    return unlike == 0


@compiled
def _hash(data, start, length):  # type: ignore[no-untyped-def]
    """FNV-1a, its halves folded, not negative."""
    value = np.int64(-3750763034362895579)
    for at in range(start, start + length):
        value = (value ^ np.int64(data[at])) * np.int64(1099511628211)
    return (value ^ (value >> 32)) & np.int64(2**62 - 1)

"""Lines of CSV to numbers and the places of texts, in one pass over the bytes.

Covers what market files hold: plain and quoted fields, blanks around numbers, decimal marks, and
decimal numbers rounded correctly. A line with anything else is left to the caller, with its place.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from grandbatch.kernels.bars.bar_rules import ACCEPTED, MISSING, UNPARSEABLE
from grandbatch.kernels.bars.loads import address_of, byte_at, first_byte, word_at
from grandbatch.kernels.bars.numbers import LINE_FEED, QUOTE, RETURN, is_end, read_number
from grandbatch.kernels.compilation import compiled, inlined

Bytes = npt.NDArray[np.uint8]
Int64 = npt.NDArray[np.int64]

N_NUMBERS = 5
"""Numbers of a bar: open, high, low, close and volume. Extra columns are further ones."""
DATE, TIME, SYMBOL, SKIPPED = range(4)
"""Texts of a line; further ones are texts beside a bar, told as they stand."""
N_TEXTS = 4
"""Texts of a line without those beside a bar."""
PADDING = 8
"""Line feeds that must stand behind a text: words are read whole, and every field ends."""

MARK = 0xEF, 0xBB, 0xBF
"""The byte order mark of UTF-8."""
PLAIN, ODD, UNCLOSED = 0, 1, 2

_ONES = np.uint64(0x0101010101010101)
_HIGH_BITS = np.uint64(0x8080808080808080)
_LETTERS = np.uint64(0x4040404040404040)
"""A bit that letters have, and digits, signs and blanks have not."""


@compiled
def _bytes_equal(word, byte):  # type: ignore[no-untyped-def]
    """Word whose first non-zero byte is the first byte of `word` that equals `byte`."""
    unlike = word ^ (_ONES * np.uint64(byte))
    return (unlike - _ONES) & ~unlike & _HIGH_BITS


@compiled
def _is_nan(at, delimiter):  # type: ignore[no-untyped-def]
    """Whether the field at `at` is ``nan``, in any letters."""
    return (
        byte_at(at) | 32 == 110
        and byte_at(at + 1) | 32 == 97
        and byte_at(at + 2) | 32 == 110
        and is_end(byte_at(at + 3), delimiter)
    )


@compiled
def _ends(word, delimiter):  # type: ignore[no-untyped-def]
    """Word whose first non-zero byte is the first byte of `word` that ends a field."""
    ends = _bytes_equal(word, delimiter) | _bytes_equal(word, LINE_FEED)
    return ends | _bytes_equal(word, RETURN)


@compiled
def _field_end(at, delimiter):  # type: ignore[no-untyped-def]
    """Where the field ends that `at` is in, outside of quotes."""
    count = first_byte(_ends(word_at(at), delimiter))
    while count == 8:
        at += 8
        count = first_byte(_ends(word_at(at), delimiter))
    return at + count


@compiled
def _passed(at, delimiter):  # type: ignore[no-untyped-def]
    """Where the field ends that `at` is in, outside of quotes, and whether it has letters."""
    letters = np.uint64(0)
    word = word_at(at)
    ends = _ends(word, delimiter)
    while ends == 0:
        letters |= word
        at += 8
        word = word_at(at)
        ends = _ends(word, delimiter)
    before = ((ends & (~ends + np.uint64(1))) >> np.uint64(7)) - np.uint64(1)
    letters |= word & before
    return at + first_byte(ends), letters & _LETTERS != np.uint64(0)


@compiled
def _text(at, delimiter):  # type: ignore[no-untyped-def]
    """Where the text of the field at `at` starts and stops, where the field ends, and its kind."""
    if byte_at(at) != QUOTE:
        end = _field_end(at, delimiter)
        return at, end, end, PLAIN
    start = stop = at + 1
    kind = PLAIN
    while byte_at(stop) != QUOTE or byte_at(stop + 1) == QUOTE:
        if byte_at(stop) == LINE_FEED or byte_at(stop) == RETURN:
            return start, stop, stop, UNCLOSED
        if byte_at(stop) == QUOTE:
            kind = ODD
            stop += 1
        stop += 1
    end = _field_end(stop + 1, delimiter)
    return start, stop, end, (kind if end == stop + 1 else ODD)


@inlined
def _note(lettered, n_lettered, beside, start, stop):  # type: ignore[no-untyped-def]
    """Take note of a field with letters in one of the last columns."""
    lettered[beside, 0, n_lettered[beside]] = start
    lettered[beside, 1, n_lettered[beside]] = stop
    n_lettered[beside] += 1


@inlined
def _forget(lettered, n_lettered, line):  # type: ignore[no-untyped-def]
    """Take back what was noted of a line, the last one."""
    for beside in range(len(lettered)):
        last = n_lettered[beside] - 1
        n_lettered[beside] -= last >= 0 and lettered[beside, 0, last] >= line


@inlined
def _read_fields(  # type: ignore[no-untyped-def]  # noqa: C901, PLR0912 (a call for each would show)
    at, base, row, found, delimiter, decimal, roles, numbers, gaps, texts, lettered, n_lettered
):
    """Read the fields of a line; where it ends, its reason, is it odd, and has it letters noted."""
    n_fields, n_numbers = len(roles), len(numbers)
    first_beside = n_numbers + len(texts)
    field = 0
    reason, is_odd, has_letters = ACCEPTED, False, False
    while True:
        role = roles[field]
        start = at
        is_read = False
        if role < n_numbers:
            value, at, is_read = read_number(start, delimiter, decimal)
            if is_read:
                numbers[role, row] = value
            elif is_end(byte_at(start), delimiter):
                at, is_read = start, True
                if role >= N_NUMBERS:
                    gaps[role - N_NUMBERS, row] = MISSING
                elif reason == ACCEPTED:
                    reason = MISSING
            elif role >= N_NUMBERS and _is_nan(start, delimiter):
                # as programs write what they lack: too often for the slow reader
                at, is_read = start + 3, True
                numbers[role, row] = np.nan
        elif role >= first_beside and byte_at(start) != QUOTE:
            at, has = _passed(start, delimiter)
            is_read = True
            if has:
                has_letters = True
                _note(lettered, n_lettered, role - first_beside, start - base, at - base)
        if not is_read:
            start, stop, at, kind = _text(start, delimiter)
            if role < n_numbers:
                is_odd = True
            elif role >= first_beside:
                has_letters = True
                _note(lettered, n_lettered, role - first_beside, start - base, stop - base)
            else:
                is_odd |= kind == ODD and role - n_numbers < SKIPPED
                texts[role - n_numbers, 0, found] = start - base
                texts[role - n_numbers, 1, found] = stop - base
            if kind == UNCLOSED:
                reason = UNPARSEABLE
        field += 1
        if byte_at(at) != delimiter or field == n_fields:
            break
        at += 1
    if field < n_fields or byte_at(at) == delimiter:
        # a delimiter right behind the last field is none
        if field < n_fields or not is_end(byte_at(at + 1), LINE_FEED):
            reason = UNPARSEABLE
        while byte_at(at) != LINE_FEED and byte_at(at) != RETURN:
            at += 1
    return at, reason, is_odd and reason != UNPARSEABLE, has_letters


@compiled
def read_lines(
    data: Bytes,
    at: int,
    row: int,
    n_rows: int,
    roles: npt.NDArray[np.uint16],
    delimiter: int,
    decimal: int,
    numbers: npt.NDArray[np.float64],
    gaps: npt.NDArray[np.uint8],
    reasons: npt.NDArray[np.uint8],
    texts: Int64,
    odd: Int64,
    lettered: Int64,
    n_lettered: Int64,
) -> tuple[int, int, int]:
    """Read lines that are not empty. Byte order marks before one are passed over.

    A line that can't be read here, for a text with quotes in it or a number in another form, is
    odd: its place is told, its row has empty texts but for those beside a bar. A line with too few
    or too many fields or a quoted field that doesn't end on it is `UNPARSEABLE`; a delimiter behind
    the last field is none.

    Parameters
    ----------
    data : (B + PADDING,) uint8
        The text, whose last line may lack an end, and line feeds behind it.
    at : int
        Where to begin: at the start of a line.
    row : int
        Index into `numbers` and `reasons` of the first line.
    n_rows : int
        Lines to read at most.
    roles : (n_fields,) uint16
        What each field of a line is: which of the `5 + K` numbers or, above these, of the texts,
        or, above these, of the columns in which a text must only be noticed.
    delimiter, decimal : int
        Byte between fields, byte before a number's decimals.
    numbers : (5 + K, T) float64
        Written: those of a bar, and K of extra columns.
    gaps : (K, T) uint8
        Written: `MISSING` where the number of an extra column is empty.
    reasons : (T,) uint8
        Written: `ACCEPTED`, `MISSING` where a number of the bar is empty, or `UNPARSEABLE`.
    texts : (4 or more, 2, n_rows) int64
        Written: where date, time, symbol, skipped fields and texts beside a bar start and stop in
        `data`.
    odd : (3, n_rows) int64
        Written: the rows of odd lines, and where these start and stop.
    lettered : (U, 2, n_rows) int64
        Written: where fields of each of the last columns start and stop that have letters, or are
        quoted, in lines that are read here.
    n_lettered : (U,) int64
        Written: how many these are.

    Returns
    -------
    at : int
        Where the next line starts, or the end.
    found : int
        Lines read.
    n_odd : int
        Odd lines among them.
    """
    base = address_of(data)
    size = base + len(data) - PADDING
    at += base
    found = n_odd = 0
    n_lettered[:] = 0
    while at < size and found < n_rows:
        if byte_at(at) == LINE_FEED or byte_at(at) == RETURN:
            at += 1
            continue
        while byte_at(at) == MARK[0] and byte_at(at + 1) == MARK[1] and byte_at(at + 2) == MARK[2]:
            at += 3  # of a file that was joined to the one before it
        line = at
        at, reason, is_odd, has_letters = _read_fields(
            at,
            base,
            row,
            found,
            delimiter,
            decimal,
            roles,
            numbers,
            gaps,
            texts,
            lettered,
            n_lettered,
        )
        if is_odd:
            odd[0, n_odd] = row
            odd[1, n_odd] = line - base
            odd[2, n_odd] = at - base
            n_odd += 1
        if is_odd or reason == UNPARSEABLE:
            for text in range(N_TEXTS if is_odd else len(texts)):
                texts[text, 0, found] = texts[text, 1, found] = 0
            if has_letters:
                _forget(lettered, n_lettered, line - base)
        reasons[row] = reason
        row += 1
        found += 1
    return at - base, found, n_odd

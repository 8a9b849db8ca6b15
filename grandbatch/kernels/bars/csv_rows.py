"""Lines of CSV to numbers and the places of texts, in one pass over the bytes.

Covers what market files hold: plain and quoted fields, blanks around numbers, decimal marks, and
decimal numbers rounded correctly. A line with anything else is left to the caller, with its place.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from grandbatch.kernels.bars.bar_rules import ACCEPTED, MISSING, UNPARSEABLE
from grandbatch.kernels.bars.loads import address_of, byte_at, first_byte, word_at
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

LINE_FEED, RETURN, QUOTE = 10, 13, 34
MARK = 0xEF, 0xBB, 0xBF
"""The byte order mark of UTF-8."""
PLAIN, ODD, UNCLOSED = 0, 1, 2

_TENS = np.array([float(f"1e{i}") for i in range(23)])
"""The powers of ten that are doubles."""
_WHOLE_TENS = np.array([10**i for i in range(9)], np.int64)
_ONES = np.uint64(0x0101010101010101)
_HIGH_BITS = np.uint64(0x8080808080808080)
_PAIRS = np.uint64(0x000000FF000000FF)
_LARGEST_EXPONENT = 64
_EXACT = np.int64(2**53)
_HALF = np.uint64(2**32 - 1)
_LETTERS = np.uint64(0x4040404040404040)
"""A bit that letters have, and digits, signs and blanks have not."""


def _power_of_five(exponent: int) -> int:
    """128 bits of a power of five, the highest set, cut; of a small reciprocal rounded up."""
    five = int(5 ** abs(exponent))
    if exponent < 0:
        return (1 << (five - 1).bit_length() + 127) // five + (exponent >= -27)
    return five << 128 >> five.bit_length()


_EXPONENTS = range(-_LARGEST_EXPONENT, _LARGEST_EXPONENT + 1)
_FIVES = np.array(
    [[_power_of_five(q) >> 64, _power_of_five(q) & (2**64 - 1)] for q in _EXPONENTS], np.uint64
)


@compiled
def _multiply(a, b):  # type: ignore[no-untyped-def]
    """High and low half of the 128 bits of a product of uint64."""
    shift = np.uint64(32)
    a1, a0, b1, b0 = a >> shift, a & _HALF, b >> shift, b & _HALF
    low = a0 * b0
    middle = a1 * b0 + (low >> shift)
    cross = a0 * b1 + (middle & _HALF)
    high = a1 * b1 + (middle >> shift) + (cross >> shift)
    return high, (cross << shift) | (low & _HALF)


@compiled
def _nearest(mantissa, exponent):  # type: ignore[no-untyped-def]
    """Return the double nearest to mantissa * 10**exponent, ties to even; 0 < mantissa < 10**18.

    The product with 128 bits of the power decides the rounding (Lemire, "Number Parsing at a
    Gigabyte per Second", 2021, section 5); exponents are so small that none is subnormal.
    """
    one = np.uint64(1)
    w = np.uint64(mantissa)
    zeros = np.int64(0)
    while w >> np.uint64(63) == np.uint64(0):
        w <<= one
        zeros += 1
    at = exponent + _LARGEST_EXPONENT
    high, low = _multiply(w, _FIVES[at, 0])
    if high & np.uint64(0x1FF) == np.uint64(0x1FF):
        more, _ = _multiply(w, _FIVES[at, 1])
        low += more
        if low < more:
            high += one
    upper = high >> np.uint64(63)
    dropped = upper + np.uint64(9)
    bits = high >> dropped
    # halfway between two doubles only where 5**exponent is exact in 64 bits
    is_tie = low <= one and exponent >= -4 and exponent <= 23 and bits & np.uint64(3) == one
    if is_tie and bits << dropped == high:
        bits -= one
    bits = (bits + (bits & one)) >> one
    power = ((np.int64(217706) * exponent) >> 16) + np.int64(upper) - zeros + 11
    return math.ldexp(float(np.int64(bits)), power)


@compiled
def _value(mantissa, exponent):  # type: ignore[no-untyped-def]
    """Return mantissa * 10**exponent, correctly rounded; |exponent| <= 64."""
    if mantissa == 0:
        return 0.0
    if mantissa < _EXACT and exponent <= 22 and exponent >= -22:
        # one operation on two exact doubles rounds correctly (Clinger 1990)
        if exponent < 0:
            return float(mantissa) / _TENS[-exponent]
        return float(mantissa) * _TENS[exponent]
    return _nearest(mantissa, exponent)


@compiled
def _bytes_equal(word, byte):  # type: ignore[no-untyped-def]
    """Word whose first non-zero byte is the first byte of `word` that equals `byte`."""
    unlike = word ^ (_ONES * np.uint64(byte))
    return (unlike - _ONES) & ~unlike & _HIGH_BITS


@compiled
def _leading_digits(word):  # type: ignore[no-untyped-def]
    """How many bytes of a word are digits before the first that isn't, and their value."""
    digits = word ^ (_ONES * np.uint64(48))
    count = first_byte(((digits + _ONES * np.uint64(0x76)) | digits) & _HIGH_BITS)
    if count == 0:
        return count, np.int64(0)
    # as the last of eight digits: their pairs, then fours, then all
    digits <<= np.uint64(64 - 8 * count)
    digits = digits * np.uint64(10) + (digits >> np.uint64(8))
    odd = (digits & _PAIRS) * np.uint64(0x000F424000000064)
    even = ((digits >> np.uint64(16)) & _PAIRS) * np.uint64(0x0000271000000001)
    return count, np.int64((odd + even) >> np.uint64(32))


@compiled
def _is_end(byte, delimiter):  # type: ignore[no-untyped-def]
    return byte == delimiter or byte == LINE_FEED or byte == RETURN  # noqa: PLR1714 (faster)


@compiled
def _skip_blanks(at, delimiter):  # type: ignore[no-untyped-def]
    while (byte_at(at) == 32 or byte_at(at) == 9) and byte_at(at) != delimiter:
        at += 1
    return at


@compiled
def _digits(at, value):  # type: ignore[no-untyped-def]
    """Append the digits at `at` to a value, which wraps after the 18th; and where they stop."""
    count = np.int64(8)
    while count == 8:
        count, more = _leading_digits(word_at(at))
        value = value * _WHOLE_TENS[count] + more
        at += count
    return value, at


@inlined
def _number(at, delimiter, decimal):  # type: ignore[no-untyped-def]
    """Value of the number that is the field at `at`, where it stops, and whether there is one."""
    negative = quoted = False
    if byte_at(at) < 48:
        quoted = byte_at(at) == QUOTE
        at = _skip_blanks(at + quoted, delimiter)
        negative = byte_at(at) == 45
        at += negative or byte_at(at) == 43
    begin = at
    mantissa, at = _digits(at, np.int64(0))
    n_digits = at - begin
    exponent = np.int64(0)
    if byte_at(at) == decimal:
        mark = at + 1
        mantissa, at = _digits(mark, mantissa)
        exponent = mark - at
        n_digits -= exponent
    good = n_digits > 0
    if n_digits > 18:
        # zeros before the first other digit take no room
        while byte_at(begin) == 48 or byte_at(begin) == decimal:
            n_digits -= byte_at(begin) == 48
            begin += 1
        good = n_digits <= 18
    if quoted or not _is_end(byte_at(at), delimiter):
        if (byte_at(at) | 32) == 101 and good:
            at += 1
            below = byte_at(at) == 45
            at += below or byte_at(at) == 43
            begin = at
            power, at = _digits(at, np.int64(0))
            good = 0 < at - begin < 5
            exponent += -power if below else power
        at = _skip_blanks(at, delimiter)
        if quoted:
            good &= byte_at(at) == QUOTE
            at += 1
        good &= _is_end(byte_at(at), delimiter)
    if not good or exponent > _LARGEST_EXPONENT or exponent < -_LARGEST_EXPONENT:
        return 0.0, at, False
    value = _value(mantissa, exponent)
    return (-value if negative else value), at, True


@compiled
def _is_nan(at, delimiter):  # type: ignore[no-untyped-def]
    """Whether the field at `at` is ``nan``, in any letters."""
    return (
        byte_at(at) | 32 == 110
        and byte_at(at + 1) | 32 == 97
        and byte_at(at + 2) | 32 == 110
        and _is_end(byte_at(at + 3), delimiter)
    )


@compiled
def _field_end(at, delimiter):  # type: ignore[no-untyped-def]
    """Where the field ends that `at` is in, outside of quotes."""
    count = np.int64(8)
    while count == 8:
        word = word_at(at)
        ends = _bytes_equal(word, delimiter) | _bytes_equal(word, LINE_FEED)
        count = first_byte(ends | _bytes_equal(word, RETURN))
        at += count
    return at


@compiled
def _passed(at, delimiter):  # type: ignore[no-untyped-def]
    """Where the field ends that `at` is in, outside of quotes, and whether it has letters."""
    count, letters = np.int64(8), np.uint64(0)
    while count == 8:
        word = word_at(at)
        ends = _bytes_equal(word, delimiter) | _bytes_equal(word, LINE_FEED)
        ends |= _bytes_equal(word, RETURN)
        count = first_byte(ends)
        before = ((ends & (~ends + np.uint64(1))) >> np.uint64(7)) - np.uint64(1)
        letters |= word & _LETTERS & before
        at += count
    return at, letters != np.uint64(0)


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


@compiled
def read_lines(  # noqa: C901, PLR0912, PLR0915 (a call that is handed arrays costs too much)
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
    n_fields, n_numbers = len(roles), len(numbers)
    first_beside = n_numbers + len(texts)
    found = n_odd = 0
    n_lettered[:] = 0
    while at < size and found < n_rows:
        if byte_at(at) == LINE_FEED or byte_at(at) == RETURN:
            at += 1
            continue
        while byte_at(at) == MARK[0] and byte_at(at + 1) == MARK[1] and byte_at(at + 2) == MARK[2]:
            at += 3  # of a file that was joined to the one before it
        line = at
        field = 0
        reason, is_odd, has_letters = ACCEPTED, False, False
        while True:
            role = roles[field]
            start = at
            is_read = False
            if role < n_numbers:
                value, at, is_read = _number(start, delimiter, decimal)
                if is_read:
                    numbers[role, row] = value
                elif _is_end(byte_at(start), delimiter):
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
                    beside = role - first_beside
                    lettered[beside, 0, n_lettered[beside]] = start - base
                    lettered[beside, 1, n_lettered[beside]] = at - base
                    n_lettered[beside] += 1
            if not is_read:
                start, stop, at, kind = _text(start, delimiter)
                if role < n_numbers:
                    is_odd = True
                elif role >= first_beside:
                    has_letters = True
                    beside = role - first_beside
                    lettered[beside, 0, n_lettered[beside]] = start - base
                    lettered[beside, 1, n_lettered[beside]] = stop - base
                    n_lettered[beside] += 1
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
            if field < n_fields or not _is_end(byte_at(at + 1), LINE_FEED):
                reason = UNPARSEABLE
            while byte_at(at) != LINE_FEED and byte_at(at) != RETURN:
                at += 1
        if reason == UNPARSEABLE:
            is_odd = False
        if is_odd:
            odd[0, n_odd] = row
            odd[1, n_odd] = line - base
            odd[2, n_odd] = at - base
            n_odd += 1
        if is_odd or reason == UNPARSEABLE:
            for text in range(N_TEXTS if is_odd else len(texts)):
                texts[text, 0, found] = texts[text, 1, found] = 0
            for beside in range(len(lettered) if has_letters else 0):
                last = n_lettered[beside] - 1
                n_lettered[beside] -= last >= 0 and lettered[beside, 0, last] >= line - base
        reasons[row] = reason
        row += 1
        found += 1
    return at - base, found, n_odd

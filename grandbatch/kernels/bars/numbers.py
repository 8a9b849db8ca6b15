"""Decimal numbers in text to the nearest doubles.

Covers digits with a mark among them, a sign, blanks and quotes around, an exponent of ten. What has
more digits than 18 is left to the caller.

Whoever changes what these do must change `csv_rows` too, which uses them: numba keeps compiled
kernels until their own file changes.
"""

from __future__ import annotations

import math

import numpy as np

from grandbatch.kernels.bars.loads import byte_at, first_byte, word_at
from grandbatch.kernels.compilation import compiled, inlined

LINE_FEED, RETURN, QUOTE = 10, 13, 34

_TENS = np.array([float(f"1e{i}") for i in range(23)])
"""The powers of ten that are doubles."""
_WHOLE_TENS = np.array([10**i for i in range(9)], np.int64)
_ONES = np.uint64(0x0101010101010101)
_ZEROS = np.uint64(0x3030303030303030)
_HIGH_BITS = np.uint64(0x8080808080808080)
_PAIRS = np.uint64(0x000000FF000000FF)
_LARGEST_EXPONENT = 64
_EXACT = np.int64(2**53)
_HALF = np.uint64(2**32 - 1)


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
def _unlike_digits(digits):  # type: ignore[no-untyped-def]
    """Word whose first non-zero byte is the first of `digits`, less 48 each, that is none."""
    return ((digits + _ONES * np.uint64(0x76)) | digits) & _HIGH_BITS


@compiled
def _value_of_digits(digits, count):  # type: ignore[no-untyped-def]
    """Value of the first `count` bytes of a word, digits less 48; anything where they are 0."""
    # as the last of eight digits: their pairs, then fours, then all
    digits <<= np.uint64((64 - 8 * count) & 63)
    digits = digits * np.uint64(10) + (digits >> np.uint64(8))
    odd = (digits & _PAIRS) * np.uint64(0x000F424000000064)
    even = ((digits >> np.uint64(16)) & _PAIRS) * np.uint64(0x0000271000000001)
    return np.int64((odd + even) >> np.uint64(32))


@compiled
def is_end(byte, delimiter):  # type: ignore[no-untyped-def]
    """Whether a field ends before a byte."""
    return byte == delimiter or byte == LINE_FEED or byte == RETURN  # noqa: PLR1714 (faster)


@compiled
def _skip_blanks(at, delimiter):  # type: ignore[no-untyped-def]
    while (byte_at(at) == 32 or byte_at(at) == 9) and byte_at(at) != delimiter:
        at += 1
    return at


@compiled
def _digits(at, value):  # type: ignore[no-untyped-def]
    """Append the digits at `at` to a value, which wraps after the 18th; and where they stop."""
    digits = word_at(at) ^ _ZEROS
    count = first_byte(_unlike_digits(digits))
    while count == 8:
        value = value * _WHOLE_TENS[8] + _value_of_digits(digits, 8)
        at += 8  # not `count`, which the next word would wait for
        digits = word_at(at) ^ _ZEROS
        count = first_byte(_unlike_digits(digits))
    if count > 0:
        value = value * _WHOLE_TENS[count] + _value_of_digits(digits, count)
    return value, at + count


@compiled
def _significant(at, end, decimal):  # type: ignore[no-untyped-def]
    """How many digits a number has from its first that isn't 0 on."""
    count = np.int64(0)
    while at < end:
        count += byte_at(at) != decimal and (count > 0 or byte_at(at) != 48)
        at += 1
    return count


@compiled
def _ending(at, delimiter, quoted):  # type: ignore[no-untyped-def]
    """Power of ten behind a number's digits, where its field ends, and whether it may end so."""
    power, good = np.int64(0), True
    if (byte_at(at) | 32) == 101:
        at += 1
        below = byte_at(at) == 45
        at += below or byte_at(at) == 43
        begin = at
        power, at = _digits(at, power)
        good = at > begin and at - begin < 5
        power = -power if below else power
    at = _skip_blanks(at, delimiter)
    if quoted:
        good &= byte_at(at) == QUOTE
        at += 1
    return power, at, good and is_end(byte_at(at), delimiter)


@inlined
def read_number(at, delimiter, decimal):  # type: ignore[no-untyped-def]
    """Value of the number that is the field at `at`, where it stops, and whether there is one."""
    negative = quoted = False
    if byte_at(at) < 48:
        quoted = byte_at(at) == QUOTE
        at = _skip_blanks(at + quoted, delimiter)
        negative = byte_at(at) == 45
        at += negative or byte_at(at) == 43
    begin = at
    # most are one word long, with their mark
    digits = word_at(at) ^ _ZEROS
    others = _unlike_digits(digits)
    count = stop = first_byte(others)
    decimals = np.int64(0)
    is_marked = count < 8 and byte_at(at + count) == decimal
    if is_marked:
        stop = first_byte(others & (others - np.uint64(1)))
        decimals = stop - count - 1
        whole = (np.uint64(1) << np.uint64(8 * count)) - np.uint64(1)
        digits = (digits & whole) | ((digits >> np.uint64(8)) & ~whole)
        count = stop - 1
    mantissa = _value_of_digits(digits, count)
    at += stop
    if stop == 8 and not is_end(byte_at(at), delimiter):
        mantissa, at = _digits(begin + 8, mantissa)
        if is_marked:
            decimals += at - begin - 8
        elif byte_at(at) == decimal:
            is_marked = True
            mark = at + 1
            mantissa, at = _digits(mark, mantissa)
            decimals = at - mark
        count = at - begin - is_marked
    if is_end(byte_at(at), delimiter) and count > 0 and count <= 15 and not quoted:
        # two exact doubles: their quotient is rounded correctly
        value = float(mantissa) / _TENS[decimals]
        return (-value if negative else value), at, True
    good = count > 0 and (count <= 18 or _significant(begin, at, decimal) <= 18)
    exponent = -decimals
    if quoted or not is_end(byte_at(at), delimiter):
        power, at, ends = _ending(at, delimiter, quoted)
        exponent += power
        good &= ends
    if not good or exponent > _LARGEST_EXPONENT or exponent < -_LARGEST_EXPONENT:
        return 0.0, at, False
    value = _value(mantissa, exponent)
    return (-value if negative else value), at, True
